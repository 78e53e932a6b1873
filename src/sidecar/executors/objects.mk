# The objects of the executors; ../Makefile includes this.
EXECUTORS += \
	executors/allow.o \
	executors/aws.o \
	executors/azure.o \
	executors/calls.o \
	executors/check.o \
	executors/claims.o \
	executors/documents.o \
	executors/executors.o \
	executors/file.o \
	executors/grpc.o \
	executors/handlers.o \
	executors/hosts.o \
	executors/http.o \
	executors/link.o \
	executors/outcomes.o \
	executors/redis.o \
	executors/s3.o \
	executors/target.o \
	executors/transfer.o \
	executors/util.o

/*
 * service_gc.h
 *		What the files of distributed_gc.DistributedGCService share.
 */
#ifndef GT_SERVICE_GC_H
#define GT_SERVICE_GC_H

#include "grpc/grpc.h"

/* The ObjectType of a type's name in SQL; CUSTOM for those without a number. */
extern int	gc_type_of_name(const char *name);

extern void gc_health_check(GrpcCall *call, const ProtobufCMessage *message);
extern void gc_get_metrics(GrpcCall *call, const ProtobufCMessage *message);

#endif							/* GT_SERVICE_GC_H */

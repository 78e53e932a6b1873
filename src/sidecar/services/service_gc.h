/*
 * service_gc.h
 *		What the files of distributed_gc.DistributedGCService share.
 */
#ifndef GT_SERVICE_GC_H
#define GT_SERVICE_GC_H

#include "grpc/grpc.h"

extern void gc_health_check(GrpcCall *call, const ProtobufCMessage *message);
extern void gc_get_metrics(GrpcCall *call, const ProtobufCMessage *message);

#endif							/* GT_SERVICE_GC_H */

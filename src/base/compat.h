/*-------------------------------------------------------------------------
 *
 * compat.h
 *	  Pretend to be on the newest server: every test of PG_VERSION_NUM is here.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_COMPAT_H
#define GT_COMPAT_H

#include "access/genam.h"
#include "access/tableam.h"
#include "catalog/pg_namespace.h"
#include "executor/executor.h"
#include "storage/proc.h"
#include "utils/acl.h"

/* 16: which indexes an update must touch became an enum */
#if PG_VERSION_NUM < 160000
typedef bool TU_UpdateIndexes;
#define gt_update_needs_indexes(u)	(u)
#define gt_only_summarizing(u)		false
#define gt_ExecInsertIndexTuples(rri, slot, estate, update, nodup, conflict, arbiters, summarizing) \
	ExecInsertIndexTuples(rri, slot, estate, update, nodup, conflict, arbiters)
#define object_aclcheck(classid, objectid, roleid, mode) \
	((classid) == NamespaceRelationId ? pg_namespace_aclcheck(objectid, roleid, mode) : \
	 pg_proc_aclcheck(objectid, roleid, mode))
#else
#define gt_update_needs_indexes(u)	((u) != TU_None)
#define gt_only_summarizing(u)		((u) == TU_Summarizing)
#define gt_ExecInsertIndexTuples(rri, slot, estate, update, nodup, conflict, arbiters, summarizing) \
	ExecInsertIndexTuples(rri, slot, estate, update, nodup, conflict, arbiters, summarizing)
#endif

/* 16: SET ROLE became an option of membership */
#if PG_VERSION_NUM < 160000
#define member_can_set_role(member, role) is_member_of_role(member, role)
#endif

/* 18: instrumentation of index scans, and the row under check */
#if PG_VERSION_NUM < 180000
#define gt_index_beginscan(heap, index, snapshot, nkeys) index_beginscan(heap, index, snapshot, nkeys, 0)
#define gt_ExecCheckIndexConstraints(rri, slot, estate, tid, arbiters) \
	ExecCheckIndexConstraints(rri, slot, estate, tid, arbiters)
#else
#define gt_index_beginscan(heap, index, snapshot, nkeys) index_beginscan(heap, index, snapshot, NULL, nkeys, 0)
#define gt_ExecCheckIndexConstraints(rri, slot, estate, tid, arbiters) \
	ExecCheckIndexConstraints(rri, slot, estate, tid, gt_no_tid(), arbiters)
static inline ItemPointer
gt_no_tid(void)
{
	static ItemPointerData invalid;

	ItemPointerSetInvalid(&invalid);
	return &invalid;
}
#endif

/* 16: who descends a B-tree for writing names its table, too; 17: old snapshots are gone */
#if PG_VERSION_NUM < 160000
#define gt_bt_search(index, heap, key, buffer) _bt_search(index, key, buffer, BT_WRITE, NULL)
#elif PG_VERSION_NUM < 170000
#define gt_bt_search(index, heap, key, buffer) _bt_search(index, heap, key, buffer, BT_WRITE, NULL)
#else
#define gt_bt_search(index, heap, key, buffer) _bt_search(index, heap, key, buffer, BT_WRITE)
#endif

/* 18: the order of an index's column is asked for by its direction */
#if PG_VERSION_NUM < 180000
#define gt_prepare_order(index, reverse, order) \
	PrepareSortSupportFromIndexRel(index, (reverse) ? BTGreaterStrategyNumber : BTLessStrategyNumber, order)
#else
#define gt_prepare_order(index, reverse, order) PrepareSortSupportFromIndexRel(index, reverse, order)
#endif

/* 17: what an index keeps from row to row may have to be put away */
#if PG_VERSION_NUM < 170000
#define gt_index_insert_cleanup(index, info) ((void) 0)
#else
#define gt_index_insert_cleanup(index, info) index_insert_cleanup(index, info)
#endif

/* minor releases of 2023: a database whose DROP was interrupted */
#ifndef DATCONNLIMIT_INVALID_DB
#define DATCONNLIMIT_INVALID_DB (-2)
#endif

/* 16: ownership is asked of one function */
#if PG_VERSION_NUM < 160000
#define gt_database_ownercheck(database, role) pg_database_ownercheck(database, role)
#else
#define gt_database_ownercheck(database, role) object_ownercheck(DatabaseRelationId, database, role)
#endif

/* 17: process numbers count from 0 and pgprocno is gone */
#if PG_VERSION_NUM < 170000
#define gt_my_procno()		(MyProc->pgprocno)
#else
#define gt_my_procno()		((int) MyProcNumber)
#endif

#endif

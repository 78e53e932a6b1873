/*-------------------------------------------------------------------------
 *
 * relations.h
 *	  The extension and what it owns, as the catalogs have it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_RELATIONS_H
#define GT_RELATIONS_H

#include "table/schema.h"

extern Oid	gt_extension(void); /* its OID, or InvalidOid where it is not installed */
extern Oid	gt_schema(void);	/* of the public functions and views */
extern Oid	gt_own_schema(void);	/* _garbagetruck: the tables, sequences and all gt__ names */
extern Oid	gt_owner(void);		/* role that owns the extension */
extern Oid	gt_sequence(GtSequenceId id);
extern Oid	gt_index(GtIndexId id);
extern bool gt_relations_changed(void);	/* since one of these was asked: what it said may be another's now */
extern int	gt_table_natts(GtTableId id);	/* columns that are ours */
/* grows when the definition of a table or sequence may have changed, or it was rebuilt or vacuumed */
extern uint64 gt_table_changes;

#endif

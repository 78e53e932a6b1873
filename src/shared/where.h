/*-------------------------------------------------------------------------
 *
 * where.h
 *	  Whether a database is where its objects live.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_WHERE_H
#define GT_WHERE_H

typedef enum
{
	GT_PLACE_NONE,				/* no objects: adopted silently by the first create */
	GT_PLACE_OURS,
	GT_PLACE_COPY				/* nothing may be ended or cleaned */
} GtPlace;

#endif

/*-------------------------------------------------------------------------
 *
 * library.h
 *	  The library that is loaded, and what has become of it on disk.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_LIBRARY_H
#define GT_LIBRARY_H

extern void gt_library_init(void);	/* from _PG_init: it is now as it is loaded */
extern bool gt_version_is_newer(const char *a, const char *b);	/* than b; as far as they are MAJOR.MINOR */
extern char *gt_library_changed(void);	/* what became of the library on disk since it was loaded; NULL: nothing */

#endif

/*-------------------------------------------------------------------------
 *
 * owner.h
 *	  Being the extension's owner: for SQL on our tables, and for grants.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_OWNER_H
#define GT_OWNER_H

/* run the block as the extension's owner: for SPI on our tables, search_path pinned */
typedef struct GtSwitch
{
	Oid			user;
	int			sec_context;
	int			guc_level;
} GtSwitch;

extern void gt_become_owner(GtSwitch *save);
extern void gt_become_user(GtSwitch *save);

extern void gt_execute_as_owner(const char *sql);

#endif

/*-------------------------------------------------------------------------
 *
 * may.h
 *	  Rights that gt_allow() gives, and who is an administrator.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_MAY_H
#define GT_MAY_H

/*
 * 42501 unless current_user was given a right that this public function belongs to.
 * gt_mark_write() asks; functions that only read begin with it.
 */
extern void gt_must_be_allowed(const char *function);
extern bool gt_is_admin(void);	/* superuser, the extension's owner or gt_allow(.., 'admin') */
extern bool gt_is_monitor(void);	/* or pg_monitor or gt_allow(.., 'monitor') */

typedef enum
{
	GT_RIGHT_LEASE = 0x1,
	GT_RIGHT_HANDLER = 0x2,
	GT_RIGHT_MONITOR = 0x4,
	GT_RIGHT_ADMIN = 0x8,		/* includes the others: its functions are all */
	GT_RIGHT_ANY = 0xf
} GtRightBits;

extern bool gt_has_right(int bits); /* current_user has one of these, or 'admin' */
/* How often that was asked in this process: by every function and view that shows or changes leases or garbage. */
extern uint64 gt_rights_asked;

#endif

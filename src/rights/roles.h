/*-------------------------------------------------------------------------
 *
 * roles.h
 *	  Roles by OID and by name, which may disagree: who is who.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_ROLES_H
#define GT_ROLES_H

extern void gt_note_role(Oid role);	/* keep its name in gt__role, once */
extern void gt_roles_translate(void);	/* a copy: give the rows of each role the OID that its name has here */
extern bool gt_role_is_named(Oid role, const char *name);	/* is it there, and called so? */
extern const char *gt_role_name(Oid role);	/* or "unknown (OID n)" */

#endif

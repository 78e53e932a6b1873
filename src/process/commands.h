/*-------------------------------------------------------------------------
 *
 * commands.h
 *	  Commands on databases.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_COMMANDS_H
#define GT_COMMANDS_H

extern void gt_database_init(void); /* hooks */

#endif

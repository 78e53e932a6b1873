/*-------------------------------------------------------------------------
 *
 * garbagetruck.h
 *	  The version, and the SQLSTATEs of our own.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GARBAGETRUCK_H
#define GARBAGETRUCK_H

#define GT_VERSION "1.0"

/* SQLSTATEs of our own, see the README */
enum
{
	ERRCODE_GT_NOT_FOUND = MAKE_SQLSTATE('G', 'T', '0', '0', '1'),
	ERRCODE_GT_EXPIRED = MAKE_SQLSTATE('G', 'T', '0', '0', '2'),
	ERRCODE_GT_OTHER_SERVICE = MAKE_SQLSTATE('G', 'T', '0', '0', '3'),
	ERRCODE_GT_RECLAIMING = MAKE_SQLSTATE('G', 'T', '0', '0', '4'),
	ERRCODE_GT_LEASED = MAKE_SQLSTATE('G', 'T', '0', '0', '5'),
	ERRCODE_GT_QUOTA = MAKE_SQLSTATE('G', 'T', '0', '0', '6'),
	ERRCODE_GT_NO_HANDLER = MAKE_SQLSTATE('G', 'T', '0', '0', '7')
};

#endif

/*
 * descriptors.c
 *		Takes proto/descriptors.bin, which the makefile has protoc write, into
 *		the program.
 */
#include "services/descriptors.h"

__asm__(
	"	.section .rodata\n"
	"	.global descriptors\n"
	"	.global descriptors_end\n"
	"descriptors:\n"
	"	.incbin \"proto/descriptors.bin\"\n"
	"descriptors_end:\n"
	"	.byte 0\n"
	"	.previous\n");

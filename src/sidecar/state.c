/*
 * state.c
 *		See state.h.
 */
#include "state.h"

State		state;

/*
 * loop.h
 *		The one event loop of the server: file descriptors, timers, tasks.
 *
 * There is one loop in a process and it belongs to the main thread; nothing
 * here may be called from another one but loop_stop().
 */
#ifndef GT_LOOP_H
#define GT_LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

extern bool loop_init(void);

/* Free what the loop itself holds. */
extern void loop_end(void);

/* Turn until loop_stop(), which any thread or a signal handler may call. */
extern void loop_run(void);
extern void loop_stop(void);

/* Monotonic microseconds, read once a turn of the loop; loop_clock() reads it now. */
extern int64_t loop_now(void);
extern int64_t loop_clock(void);

/* The same without the time in which this process did not run: by it others are silent. */
extern int64_t loop_awake(void);

/*
 * Watch a file descriptor for EPOLLIN and the like.  `handler` may remove any
 * descriptor, its own too.  Removing does not close.
 */
typedef struct LoopFd LoopFd;
typedef void (*LoopFdHandler) (void *arg, uint32_t events);

extern LoopFd *loop_add(int fd, uint32_t events, LoopFdHandler handler, void *arg);
extern void loop_modify(LoopFd *watch, uint32_t events);
extern void loop_remove(LoopFd *watch);

/*
 * A timer that its owner embeds, zeroed before its first use.  Starting one
 * that runs moves it; it fires once.
 */
typedef struct LoopTimer
{
	int64_t		due_us;
	int64_t		patience_us;	/* see timer_start_patient(); else 0 */
	int			slot;			/* place in the heap, from 1; 0: not running */
	void		(*fire) (void *arg);
	void	   *arg;
} LoopTimer;

extern void timer_start(LoopTimer *timer, int64_t delay_us,
						void (*fire) (void *arg), void *arg);
extern void timer_stop(LoopTimer *timer);

/*
 * One that says how long somebody else may take.  When this process itself did
 * not run (stopped, or the machine was), it begins anew instead of firing.
 */
extern void timer_start_patient(LoopTimer *timer, int64_t delay_us,
								void (*fire) (void *arg), void *arg);
static inline bool
timer_running(const LoopTimer *timer)
{
	return timer->slot != 0;
}

/*
 * Work to do after the events of this turn, before the loop waits again; it is
 * embedded too.  Deferring one that waits already changes nothing.
 */
typedef struct LoopTask
{
	struct LoopTask *next,
			   *prev;
	bool		queued;
	void		(*run) (void *arg);
	void	   *arg;
} LoopTask;

extern void task_defer(LoopTask *task, void (*run) (void *arg), void *arg);
extern void task_cancel(LoopTask *task);

#endif							/* GT_LOOP_H */

/*
 * loop.c
 *		The event loop: epoll, a heap of timers, a list of deferred tasks.
 *
 * One turn: wait until the first timer is due at the latest, handle the
 * events, fire the timers, run the tasks.  When a timer is much too late this
 * process did not run (SIGSTOP, a machine without time for it): then all that
 * has come meanwhile is dealt with first, so that nobody is called late whose
 * word is here already, and who had no chance to speak gets his time again.
 *
 * Watches that are removed while
 * events are being handled are freed at the end of the turn, as later events
 * of the same turn may still point to them.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/memory.h"
#include "net/loop.h"

#define EVENTS_PER_TURN 256
#define LATE_US 1000000
#define CATCH_UP_TURNS 100

struct LoopFd
{
	int			fd;
	LoopFdHandler handler;		/* NULL: removed */
	void	   *arg;
	struct LoopFd *next_dead;
};

static int	epoll_fd = -1;
static int	wake_fd = -1;
static LoopFd *wake_watch;
static bool stopping = false;
static bool turning = false;
static int64_t now_us;
static int64_t stalled_us;		/* in which this process did not run */
static LoopFd *dead_watches;

static LoopTimer **heap;		/* from 1 */
static int	heap_used;
static int	heap_size;

static LoopTask tasks = {.next = &tasks, .prev = &tasks};

int64_t
loop_clock(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t) now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int64_t
loop_now(void)
{
	/* Before the first turn much may take long, such as making a whole database. */
	return turning ? now_us : loop_clock();
}

int64_t
loop_awake(void)
{
	return loop_now() - stalled_us;
}

static void
drain_wake_fd(void *arg, uint32_t events)
{
	uint64_t	count;
	ssize_t		ignored = read(wake_fd, &count, sizeof(count));

	(void) ignored;
}

bool
loop_init(void)
{
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	now_us = loop_clock();
	if (epoll_fd < 0 || wake_fd < 0)
		return false;
	wake_watch = loop_add(wake_fd, EPOLLIN, drain_wake_fd, NULL);
	return wake_watch != NULL;
}

void
loop_stop(void)
{
	uint64_t	one = 1;
	ssize_t		ignored;

	stopping = true;
	ignored = write(wake_fd, &one, sizeof(one));
	(void) ignored;
}

/* ---- file descriptors ---- */

LoopFd *
loop_add(int fd, uint32_t events, LoopFdHandler handler, void *arg)
{
	LoopFd	   *watch = calloc(1, sizeof(LoopFd));
	struct epoll_event event = {.events = events};

	if (watch == NULL)
		return NULL;
	watch->fd = fd;
	watch->handler = handler;
	watch->arg = arg;
	event.data.ptr = watch;
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
	{
		free(watch);
		return NULL;
	}
	return watch;
}

void
loop_modify(LoopFd *watch, uint32_t events)
{
	struct epoll_event event = {.events = events};

	event.data.ptr = watch;
	if (epoll_ctl(epoll_fd, EPOLL_CTL_MOD, watch->fd, &event) < 0)
		log_line(LOG_ERROR, "could not change the events of a file descriptor: %s", strerror(errno));
}

void
loop_remove(LoopFd *watch)
{
	if (watch == NULL)
		return;
	epoll_ctl(epoll_fd, EPOLL_CTL_DEL, watch->fd, NULL);
	watch->handler = NULL;
	watch->next_dead = dead_watches;
	dead_watches = watch;
}

static void
free_dead_watches(void)
{
	while (dead_watches != NULL)
	{
		LoopFd	   *next = dead_watches->next_dead;

		free(dead_watches);
		dead_watches = next;
	}
}

/* ---- timers ---- */

static void
heap_put(int slot, LoopTimer *timer)
{
	heap[slot] = timer;
	timer->slot = slot;
}

static void
heap_up(int slot, LoopTimer *timer)
{
	while (slot > 1 && heap[slot / 2]->due_us > timer->due_us)
	{
		heap_put(slot, heap[slot / 2]);
		slot /= 2;
	}
	heap_put(slot, timer);
}

static void
heap_down(int slot, LoopTimer *timer)
{
	for (;;)
	{
		int			child = slot * 2;

		if (child > heap_used)
			break;
		if (child < heap_used && heap[child + 1]->due_us < heap[child]->due_us)
			child++;
		if (heap[child]->due_us >= timer->due_us)
			break;
		heap_put(slot, heap[child]);
		slot = child;
	}
	heap_put(slot, timer);
}

void
timer_stop(LoopTimer *timer)
{
	LoopTimer  *last;
	int			slot = timer->slot;

	if (slot == 0)
		return;
	timer->slot = 0;
	last = heap[heap_used--];
	if (last == timer)
		return;
	if (slot > 1 && heap[slot / 2]->due_us > last->due_us)
		heap_up(slot, last);
	else
		heap_down(slot, last);
}

void
timer_start(LoopTimer *timer, int64_t delay_us, void (*fire) (void *arg), void *arg)
{
	timer_stop(timer);
	/* Not from the turn's beginning: what came before in it may have taken longer than the delay. */
	timer->due_us = loop_clock() + (delay_us > 0 ? delay_us : 0);
	timer->patience_us = 0;
	timer->fire = fire;
	timer->arg = arg;
	if (heap_used + 1 >= heap_size)
	{
		int			size = heap_size == 0 ? 64 : heap_size * 2;

		/* A timer that never fires is a call that never ends. */
		heap = needed(realloc(heap, sizeof(LoopTimer *) * (size_t) size));
		heap_size = size;
	}
	heap_up(++heap_used, timer);
}

void
timer_start_patient(LoopTimer *timer, int64_t delay_us, void (*fire) (void *arg), void *arg)
{
	timer_start(timer, delay_us, fire, arg);
	timer->patience_us = delay_us;
}

/* The first timer tells. */
static bool
is_late(void)
{
	int64_t		late = heap_used > 0 ? now_us - heap[1]->due_us : 0;

	if (late > LATE_US)
		stalled_us += late;
	return late > LATE_US;
}

static void
fire_timers(bool late)
{
	while (heap_used > 0 && heap[1]->due_us <= now_us)
	{
		LoopTimer  *timer = heap[1];

		if (late && timer->patience_us > 0)
		{
			timer_start_patient(timer, timer->patience_us, timer->fire, timer->arg);
			continue;
		}
		timer_stop(timer);
		timer->fire(timer->arg);
	}
}

/* ---- tasks ---- */

void
task_defer(LoopTask *task, void (*run) (void *arg), void *arg)
{
	if (task->queued)
		return;
	task->run = run;
	task->arg = arg;
	task->queued = true;
	task->next = &tasks;
	task->prev = tasks.prev;
	tasks.prev->next = task;
	tasks.prev = task;
}

void
task_cancel(LoopTask *task)
{
	if (!task->queued)
		return;
	task->queued = false;
	task->prev->next = task->next;
	task->next->prev = task->prev;
}

/* Tasks may defer further ones: those run too, in this turn. */
static void
run_tasks(void)
{
	while (tasks.next != &tasks)
	{
		LoopTask   *task = tasks.next;

		task_cancel(task);
		task->run(task->arg);
	}
}

void
loop_end(void)
{
	loop_remove(wake_watch);
	free_dead_watches();
	free(heap);
	close(wake_fd);
	close(epoll_fd);
}

/* ---- the turn ---- */

static int
wait_milliseconds(void)
{
	int64_t		delay;

	if (heap_used == 0)
		return -1;
	delay = heap[1]->due_us - loop_clock();
	if (delay <= 0)
		return 0;
	delay = (delay + 999) / 1000;
	return delay > 60000 ? 60000 : (int) delay;
}

/* Wait for events, and handle those that have come: their number, or -1. */
static int
handle_events(int milliseconds)
{
	struct epoll_event events[EVENTS_PER_TURN];
	int			n = epoll_wait(epoll_fd, events, EVENTS_PER_TURN, milliseconds);
	int			i;

	if (n < 0 && errno != EINTR)
	{
		log_line(LOG_ERROR, "could not wait for events: %s", strerror(errno));
		return -1;
	}
	now_us = loop_clock();
	for (i = 0; i < n; i++)
	{
		LoopFd	   *watch = events[i].data.ptr;

		if (watch->handler != NULL)
			watch->handler(watch->arg, events[i].events);
	}
	return n > 0 ? n : 0;
}

static void
finish_turn(void)
{
	run_tasks();
	free_dead_watches();
}

/* All that has come while this process did not run. */
static void
catch_up(int n)
{
	int			i;

	for (i = 0; n > 0 && i < CATCH_UP_TURNS && !stopping; i++)
	{
		finish_turn();
		n = handle_events(0);
	}
}

void
loop_run(void)
{
	run_tasks();
	now_us = loop_clock();
	turning = true;
	while (!stopping)
	{
		int			n = handle_events(wait_milliseconds());
		bool		late;

		if (n < 0)
			return;
		late = is_late();
		if (late)
			catch_up(n);
		fire_timers(late);
		finish_turn();
	}
}

/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* poll(): which calls would not wait. */
#ifndef LINUX_POLL_H
#define LINUX_POLL_H

#include <linux/fs.h>
#include <linux/wait.h>

#define EPOLLIN ((__poll_t)0x1)
#define EPOLLPRI ((__poll_t)0x2)
#define EPOLLOUT ((__poll_t)0x4)
#define EPOLLERR ((__poll_t)0x8)
#define EPOLLHUP ((__poll_t)0x10)
#define EPOLLNVAL ((__poll_t)0x20)
#define EPOLLRDNORM ((__poll_t)0x40)
#define EPOLLRDBAND ((__poll_t)0x80)
#define EPOLLWRNORM ((__poll_t)0x100)
#define EPOLLWRBAND ((__poll_t)0x200)
#define EPOLLMSG ((__poll_t)0x400)
#define EPOLLRDHUP ((__poll_t)0x2000)
#define POLLIN 0x1
#define POLLPRI 0x2
#define POLLOUT 0x4
#define POLLERR 0x8
#define POLLHUP 0x10
#define POLLNVAL 0x20
#define POLLRDNORM 0x40
#define POLLRDBAND 0x80
#define POLLWRNORM 0x100
#define POLLWRBAND 0x200
#define POLLMSG 0x400
#define POLLRDHUP 0x2000
#define DEFAULT_POLLMASK (EPOLLIN | EPOLLOUT | EPOLLRDNORM | EPOLLWRNORM)

typedef struct poll_table_struct {
	/* The events for which the program asks. */
	__poll_t _key;
} poll_table;

void poll_wait(struct file *file, wait_queue_head_t *queue, poll_table *table);
#define poll_requested_events(table) ((table) ? (table)->_key : ~(__poll_t)0)
#define poll_does_not_wait(table) ((table) == NULL)

#endif

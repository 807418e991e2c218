/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Lists: circular ones with two links (list_head), and ones with a head of one pointer (hlist_head). */
#ifndef LINUX_LIST_H
#define LINUX_LIST_H

#include <linux/container_of.h>
#include <linux/types.h>

/* A use of an element after list_del() is a fault at these addresses. */
#define LIST_POISON1 ((void *)(0x100 + 0xdead000000000000UL))
#define LIST_POISON2 ((void *)(0x122 + 0xdead000000000000UL))

#define LIST_HEAD_INIT(name) { &(name), &(name) }
#define LIST_HEAD(name) struct list_head name = LIST_HEAD_INIT(name)

static inline void INIT_LIST_HEAD(struct list_head *list)
{
	list->next = list;
	list->prev = list;
}

static inline void __list_insert(struct list_head *node, struct list_head *before, struct list_head *after)
{
	after->prev = node;
	node->next = after;
	node->prev = before;
	before->next = node;
}

static inline void list_add(struct list_head *node, struct list_head *head)
{
	__list_insert(node, head, head->next);
}

static inline void list_add_tail(struct list_head *node, struct list_head *head)
{
	__list_insert(node, head->prev, head);
}

static inline void __list_del_entry(struct list_head *node)
{
	node->next->prev = node->prev;
	node->prev->next = node->next;
}

static inline void list_del(struct list_head *node)
{
	__list_del_entry(node);
	node->next = LIST_POISON1;
	node->prev = LIST_POISON2;
}

static inline void list_del_init(struct list_head *node)
{
	__list_del_entry(node);
	INIT_LIST_HEAD(node);
}

static inline void list_replace(struct list_head *old, struct list_head *node)
{
	node->next = old->next;
	node->next->prev = node;
	node->prev = old->prev;
	node->prev->next = node;
}

static inline void list_move(struct list_head *node, struct list_head *head)
{
	__list_del_entry(node);
	list_add(node, head);
}

static inline void list_move_tail(struct list_head *node, struct list_head *head)
{
	__list_del_entry(node);
	list_add_tail(node, head);
}

static inline int list_empty(const struct list_head *head)
{
	return READ_ONCE(head->next) == head;
}

static inline int list_is_last(const struct list_head *node, const struct list_head *head)
{
	return node->next == head;
}

static inline int list_is_first(const struct list_head *node, const struct list_head *head)
{
	return node->prev == head;
}

static inline int list_is_singular(const struct list_head *head)
{
	return !list_empty(head) && head->next == head->prev;
}

static inline void list_splice(const struct list_head *list, struct list_head *head)
{
	if (list_empty(list))
		return;
	list->next->prev = head;
	list->prev->next = head->next;
	head->next->prev = list->prev;
	head->next = list->next;
}

static inline void list_splice_init(struct list_head *list, struct list_head *head)
{
	list_splice(list, head);
	INIT_LIST_HEAD(list);
}

#define list_entry(pointer, type, member) container_of(pointer, type, member)
#define list_first_entry(head, type, member) list_entry((head)->next, type, member)
#define list_last_entry(head, type, member) list_entry((head)->prev, type, member)
#define list_first_entry_or_null(head, type, member) (list_empty(head) ? NULL : list_first_entry(head, type, member))
#define list_next_entry(entry, member) list_entry((entry)->member.next, __typeof__(*(entry)), member)
#define list_prev_entry(entry, member) list_entry((entry)->member.prev, __typeof__(*(entry)), member)
#define list_for_each(node, head) for (node = (head)->next; node != (head); node = node->next)
#define list_for_each_prev(node, head) for (node = (head)->prev; node != (head); node = node->prev)
#define list_for_each_safe(node, after, head) \
	for (node = (head)->next, after = node->next; node != (head); node = after, after = node->next)
#define list_entry_is_head(entry, head, member) (&(entry)->member == (head))
#define list_for_each_entry(entry, head, member) \
	for (entry = list_first_entry(head, __typeof__(*entry), member); !list_entry_is_head(entry, head, member); \
	     entry = list_next_entry(entry, member))
#define list_for_each_entry_reverse(entry, head, member) \
	for (entry = list_last_entry(head, __typeof__(*entry), member); !list_entry_is_head(entry, head, member); \
	     entry = list_prev_entry(entry, member))
#define list_for_each_entry_safe(entry, after, head, member) \
	for (entry = list_first_entry(head, __typeof__(*entry), member), after = list_next_entry(entry, member); \
	     !list_entry_is_head(entry, head, member); entry = after, after = list_next_entry(after, member))

#define HLIST_HEAD_INIT { .first = NULL }
#define HLIST_HEAD(name) struct hlist_head name = HLIST_HEAD_INIT
#define INIT_HLIST_HEAD(head) ((head)->first = NULL)

static inline void INIT_HLIST_NODE(struct hlist_node *node)
{
	node->next = NULL;
	node->pprev = NULL;
}

static inline int hlist_unhashed(const struct hlist_node *node)
{
	return !node->pprev;
}

static inline int hlist_empty(const struct hlist_head *head)
{
	return !READ_ONCE(head->first);
}

static inline void hlist_add_head(struct hlist_node *node, struct hlist_head *head)
{
	node->next = head->first;
	if (head->first)
		head->first->pprev = &node->next;
	head->first = node;
	node->pprev = &head->first;
}

static inline void hlist_del(struct hlist_node *node)
{
	*node->pprev = node->next;
	if (node->next)
		node->next->pprev = node->pprev;
	node->next = LIST_POISON1;
	node->pprev = LIST_POISON2;
}

static inline void hlist_del_init(struct hlist_node *node)
{
	if (hlist_unhashed(node))
		return;
	hlist_del(node);
	INIT_HLIST_NODE(node);
}

#define hlist_entry(pointer, type, member) container_of(pointer, type, member)
#define hlist_entry_safe(pointer, type, member) ({ \
	__typeof__(pointer) __node = (pointer); \
	__node ? hlist_entry(__node, type, member) : NULL; })
#define hlist_for_each(node, head) for (node = (head)->first; node; node = node->next)
#define hlist_for_each_safe(node, after, head) for (node = (head)->first; node && ({ after = node->next; 1; }); node = after)
#define hlist_for_each_entry(entry, head, member) \
	for (entry = hlist_entry_safe((head)->first, __typeof__(*(entry)), member); entry; \
	     entry = hlist_entry_safe((entry)->member.next, __typeof__(*(entry)), member))
#define hlist_for_each_entry_safe(entry, after, head, member) \
	for (entry = hlist_entry_safe((head)->first, __typeof__(*entry), member); entry && ({ after = entry->member.next; 1; }); \
	     entry = hlist_entry_safe(after, __typeof__(*entry), member))

#endif

// SPDX-License-Identifier: GPL-2.0
/* Objects until there is no more memory; then all are freed, and the memory is there again. */
#include <linux/list.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

struct item {
	struct list_head entry;
	char text[100];
};

static LIST_HEAD(items);

static int __init memory_init(void)
{
	struct item *item, *next;
	unsigned int count = 0, wrong = 0;
	char *large;

	while ((item = kzalloc(sizeof(*item), GFP_KERNEL | __GFP_NOWARN))) {
		snprintf(item->text, sizeof(item->text), "%u", count++);
		list_add_tail(&item->entry, &items);
	}
	pr_info("%s\n", count > 20000 ? "many objects" : "few objects");
	count = 0;
	list_for_each_entry_safe(item, next, &items, entry) {
		char text[16];

		snprintf(text, sizeof(text), "%u", count++);
		wrong += strcmp(text, item->text) != 0;
		list_del(&item->entry);
		kfree(item);
	}
	large = vmalloc(64 << 20);
	pr_info("%u wrong, %s\n", wrong, large ? "memory is there again" : "memory is lost");
	if (large)
		memset(large, 1, 64 << 20);
	vfree(large);
	large = kmalloc(10, GFP_KERNEL);
	large = krealloc(large, 5000, GFP_KERNEL);
	large[4999] = 'x';
	kfree(large);
	return -ENODEV;
}

module_init(memory_init);
MODULE_LICENSE("GPL");

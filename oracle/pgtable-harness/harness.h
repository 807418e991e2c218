// The interface between pgtable-fuzz and the library that oracle/pgtable builds from the kernel's source.
//
// One library has one page size and, in a process, one table. The library is not thread-safe.
#ifndef CPAGETABLE_HARNESS_H
#define CPAGETABLE_HARNESS_H

#include <stdint.h>

// The operations, in the order of TableOperation.Kind of Sources/PageTableCases.
enum pgtable_kind {
  PGTABLE_MAP,
  PGTABLE_SET_OWNER,
  PGTABLE_UNMAP,
  PGTABLE_WRITE_PROTECT,
  PGTABLE_MAKE_YOUNG,
  PGTABLE_MAKE_OLD,
  PGTABLE_IS_YOUNG,
  PGTABLE_RELAX,
  PGTABLE_FLUSH,
  PGTABLE_LEAF,
  PGTABLE_HIDE,
  PGTABLE_SEEK,
  PGTABLE_DESTROY,
  PGTABLE_ANNOTATE,
  PGTABLE_TEST_YOUNG,
  PGTABLE_SPLIT,
  PGTABLE_CREATE_UNLINKED,
  PGTABLE_FREE_UNLINKED,
  PGTABLE_DESTROY_RANGE,
};

// A machine.
struct pgtable_machine {
  uint32_t ipa_bits;
  uint32_t has_fwb;
  uint32_t has_xnx;
  uint32_t has_tlb_range;
  uint32_t has_52_bits;
};

// One operation. Fields that its kind does not need are 0.
struct pgtable_operation {
  uint32_t kind;
  uint32_t can_allocate;
  uint32_t byte;  // the owner, the hidden byte, the type of an annotation, a level, or whether pages become old
  uint32_t flags; // of the walk, as the model's WalkFlags
  uint32_t count; // pages in a cache, or whether an unlinked table is to have pages only
  uint32_t reserved;
  uint64_t address;
  uint64_t size;
  uint64_t physical;   // or an annotation
  uint64_t protection; // as the model's Protection
};

// The result of an operation.
struct pgtable_result {
  int32_t error;  // an errno, positive; 0 if there was none
  uint32_t level; // of a leaf
  uint64_t value; // an entry, a truth value or a byte
  uint64_t protection;
};

enum pgtable_event_kind {
  PGTABLE_INVALIDATE, // address and level
  PGTABLE_INVALIDATE_ALL,
  PGTABLE_DATA_CACHE,        // address (physical) and size
  PGTABLE_INSTRUCTION_CACHE, // address (physical) and size
  PGTABLE_INVALIDATE_LOCAL,  // address and level
  PGTABLE_INVALIDATE_RANGE,  // address, and the number of pages as size
};

// A TLB invalidation, or an operation of cache maintenance.
struct pgtable_event {
  uint32_t kind;
  uint32_t level;
  uint64_t address;
  uint64_t size;
};

// The table after an operation.
struct pgtable_state {
  const uint64_t *words;  // the entries of each page that has been a table
  const uint32_t *counts; // and the reference counts of these pages
  uint64_t pages;
  int64_t pages_in_use;
  const struct pgtable_event *events; // of the last operation
  uint64_t event_count;
  uint64_t warnings; // the number of WARN_ONs since the library was loaded
  uint64_t misuses;  // references taken or dropped on a free page, since then
  // Whether the last operation was given up, because the kernel would have followed an entry out of table memory. Its
  // further behaviour would depend on the content of that memory.
  uint32_t is_lost;
  // Whether events are kept. Clear it to measure time.
  uint32_t is_logging;
};

// The type of the only symbol, `pgtable_library`.
struct pgtable_library {
  uint32_t page_shift;
  uint32_t version; // of Linux: 0x060100 is 6.1
  struct pgtable_state *state;
  // Makes a table in fresh memory, in place of the table before.
  void (*create)(const struct pgtable_machine *machine);
  void (*run)(const struct pgtable_operation *operation, struct pgtable_result *result);
  // Runs `body` in a child process, and returns the child's wait status, or -1. If `body` returns, the child ends with
  // status 0.
  int (*run_in_child)(void (*body)(void *), void *context);
  // Lets SIGVTALRM end the process after `seconds` of CPU time from now.
  void (*limit_time)(uint32_t seconds);
  // The address of 4096 bytes that children share with their parent.
  void *shared;
};

#endif

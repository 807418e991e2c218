// What pgtable-fuzz and the library that oracle/pgtable builds from the kernel's source say to each other.
//
// One library has one page size and, in a process, one table. None of it is thread-safe.
#ifndef CPAGETABLE_HARNESS_H
#define CPAGETABLE_HARNESS_H

#include <stdint.h>

// The operations, in the order of pgtable-fuzz's Operation.Kind.
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
};

// One operation. What its kind does not need is 0.
struct pgtable_operation {
  uint32_t kind;
  uint32_t can_allocate;
  uint32_t byte; // the owner, or what is hidden
  uint32_t reserved;
  uint64_t address;
  uint64_t size;
  uint64_t physical;
  uint64_t protection;
};

// What an operation returned.
struct pgtable_result {
  int32_t error;  // an errno, positive; 0 where there was none
  uint32_t level; // of a leaf
  uint64_t value; // an entry, a truth value or a byte
  uint64_t protection;
};

enum pgtable_event_kind {
  PGTABLE_INVALIDATE, // address and level
  PGTABLE_INVALIDATE_ALL,
  PGTABLE_DATA_CACHE,        // address (physical) and size
  PGTABLE_INSTRUCTION_CACHE, // address (physical) and size
};

// A TLB invalidation, or cache maintenance.
struct pgtable_event {
  uint32_t kind;
  uint32_t level;
  uint64_t address;
  uint64_t size;
};

// The table as it is after an operation.
struct pgtable_state {
  const uint64_t *words;  // the entries of every page that was ever a table
  const uint32_t *counts; // and its reference count
  uint64_t pages;
  int64_t pages_in_use;
  const struct pgtable_event *events; // of the last operation
  uint64_t event_count;
  uint64_t warnings; // WARN_ONs that fired since the library was loaded
  uint64_t misuses;  // references that were taken or dropped on a page that was free already, since then
  // The last operation was given up where the kernel would have followed an entry out of table memory, and what it
  // would have done then depends on what is there.
  uint32_t is_lost;
  // Whether events are kept. Clear it to measure time.
  uint32_t is_logging;
};

// The only symbol, `pgtable_library`.
struct pgtable_library {
  uint32_t page_shift;
  struct pgtable_state *state;
  // A table in fresh memory, instead of the one before.
  void (*create)(uint32_t ipa_bits, uint32_t has_fwb);
  void (*run)(const struct pgtable_operation *operation, struct pgtable_result *result);
  // Runs `body` in a child process, and returns its wait status, or -1. A `body` that comes back ends the child with
  // status 0.
  int (*run_in_child)(void (*body)(void *), void *context);
  // Lets SIGVTALRM end the process after so many seconds on a CPU from now on.
  void (*limit_time)(uint32_t seconds);
  // 4096 bytes that children share with their parent.
  void *shared;
};

#endif

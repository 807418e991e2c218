import CPageTable
import Glibc
import PageTableCases
import Stage2Sim

/// The kernel's pgtable.c, as oracle/pgtable builds it for one page size.
///
/// A library that is loaded at run time can only be accessed by unsafe code. All of this code is in this file. The
/// library and its memory exist until the process ends.
struct KernelLibrary {
  private let library: pgtable_library
  let kernel: KernelVersion
  let granule: Granule

  /// - Parameter directory: The directory whose directories `6.1` and so on have `libpgtable-4K.so`, `-16K` and `-64K`.
  init(
    _ kernel: KernelVersion, _ granule: Granule, in directory: String
  ) throws(LibraryError) {
    let directory = "\(directory)/\(kernel.rawValue)"
    let path = "\(directory)/libpgtable-\(granule).so"
    guard let handle = dlopen(path, RTLD_NOW | RTLD_LOCAL) else {
      throw LibraryError(
        "cannot load \(String(cString: dlerror())); oracle/pgtable builds it")
    }
    guard let symbol = dlsym(handle, "pgtable_library") else {
      throw LibraryError(
        "\(path) has no pgtable_library: remove it, and oracle/pgtable builds it again")
    }
    library = symbol.assumingMemoryBound(to: pgtable_library.self).pointee
    self.granule = granule
    self.kernel = kernel
    let version = "\(library.version >> 16).\(library.version >> 8 & 0xff)"
    guard version == kernel.rawValue else {
      throw LibraryError(
        "\(path) is from Linux \(version): remove it, and oracle/pgtable builds it again")
    }
    guard library.page_shift == granule.pageShift else {
      throw LibraryError(
        "\(path) is for pages of \(1 << library.page_shift) bytes: remove it, and oracle/pgtable builds it again"
      )
    }
  }

  // MARK: - The table

  /// Makes a table in fresh memory, in place of the table before.
  func create(_ machine: TableMachine) {
    precondition(machine.granule == granule && machine.kernel == kernel)
    var argument = pgtable_machine(
      ipa_bits: UInt32(machine.ipaBits), has_fwb: machine.hasFWB ? 1 : 0,
      has_xnx: machine.hasXNX ? 1 : 0, has_tlb_range: machine.hasTLBRange ? 1 : 0,
      has_52_bits: machine.has52Bits ? 1 : 0)
    library.create(&argument)
  }

  func run(_ operation: TableOperation) -> TableOutcome {
    var argument = pgtable_operation(
      kind: operation.kind.rawValue, can_allocate: operation.canAllocate ? 1 : 0,
      byte: UInt32(operation.byte), flags: UInt32(operation.flags.rawValue),
      count: operation.count, reserved: 0, address: operation.address,
      size: operation.size, physical: operation.physical,
      protection: operation.protection.rawValue)
    var result = pgtable_result()
    library.run(&argument, &result)
    return TableOutcome(
      error: result.error, level: Int(result.level), value: result.value,
      protection: Protection(rawValue: result.protection))
  }

  /// Whether the last operation was given up because it left table memory (`is_lost`).
  var isLost: Bool { library.state.pointee.is_lost != 0 }

  /// The number of pages that have been a table.
  var pages: Int { Int(library.state.pointee.pages) }

  var warnings: UInt64 { library.state.pointee.warnings }

  /// The number of references that were taken or dropped on a free page.
  var misuses: UInt64 { library.state.pointee.misuses }

  /// Whether events are kept. Time is measured without events.
  var isLogging: Bool {
    get { library.state.pointee.is_logging != 0 }
    nonmutating set { library.state.pointee.is_logging = newValue ? 1 : 0 }
  }

  private var recordedEvents: UnsafeBufferPointer<pgtable_event> {
    let state = library.state.pointee
    return UnsafeBufferPointer(start: state.events, count: Int(state.event_count))
  }

  /// The events of the last operation.
  var events: [TableEvent] { recordedEvents.map(TableEvent.init) }

  /// Whether the last operation invalidated the TLB of the whole VM, or of a range.
  var hasInvalidatedAll: Bool {
    recordedEvents.contains {
      $0.kind == PGTABLE_INVALIDATE_ALL.rawValue || $0.kind == PGTABLE_INVALIDATE_RANGE.rawValue
    }
  }

  /// The state of the table. It is valid until the next operation.
  var state: TableState {
    let state = library.state.pointee
    return TableState(
      words: UnsafeBufferPointer(start: state.words, count: pages * granule.entriesPerTable),
      counts: UnsafeBufferPointer(start: state.counts, count: pages),
      pagesInUse: Int(state.pages_in_use))
  }

  /// Whether both sides have the same entries in each page that has been a table, the same reference counts, pages in
  /// use, and events of the last operation.
  func agrees(with model: borrowing TableModel) -> Bool {
    let state = library.state.pointee
    let memory = model.table.memory
    guard memory.pagesInUse == state.pages_in_use,
      model.trace.events.count == state.event_count
    else { return false }
    let hasEqualTables = memory.withEntries { words, counts in
      counts.count == state.pages
        && memcmp(words.baseAddress!, state.words, words.count * 8) == 0
        && memcmp(counts.baseAddress!, state.counts, counts.count * 4) == 0
    }
    return hasEqualTables
      && zip(model.trace.events, recordedEvents).allSatisfy { $0 == TableEvent($1) }
  }

  // MARK: - Child processes

  /// The end of a child.
  enum Ending: Equatable {
    case exited(Int32)
    case signal(Int32)
  }

  /// Runs `body` in a child process. If the model traps or never returns, the parent continues, and can report it.
  func inChild(_ body: () -> Void) throws(LibraryError) -> Ending {
    let status = withoutActuallyEscaping(body) { body in
      withUnsafePointer(to: body) { pointer in
        library.run_in_child(
          { $0!.assumingMemoryBound(to: (() -> Void).self).pointee() },
          UnsafeMutableRawPointer(mutating: pointer))
      }
    }
    guard status != -1 else {
      throw LibraryError("cannot start a child process: \(String(cString: strerror(errno)))")
    }
    return status & 0x7f == 0 ? .exited(status >> 8 & 0xff) : .signal(status & 0x7f)
  }

  /// Limits the CPU time of a child from now on. ``Ending/signal(_:)`` with `SIGVTALRM` then reports a child that needs
  /// more.
  func limitTime(seconds: UInt32) { library.limit_time(seconds) }

  /// The numbers that children share with their parent, all 0 at first.
  subscript(shared index: Int) -> UInt64 {
    get { numbers[index] }
    nonmutating set { numbers[index] = newValue }
  }

  func clearShared() { numbers.update(repeating: 0) }

  private var numbers: UnsafeMutableBufferPointer<UInt64> {
    UnsafeMutableBufferPointer(
      start: library.shared.assumingMemoryBound(to: UInt64.self), count: 512)
  }
}

struct LibraryError: Error, CustomStringConvertible {
  let description: String

  init(_ description: String) { self.description = description }
}

extension TableEvent {
  init(_ event: pgtable_event) {
    let level = Int(event.level)
    switch pgtable_event_kind(event.kind) {
    case PGTABLE_INVALIDATE: self = .invalidation(address: event.address, level: level)
    case PGTABLE_INVALIDATE_LOCAL: self = .localInvalidation(address: event.address, level: level)
    case PGTABLE_INVALIDATE_RANGE:
      self = .invalidationOfRange(address: event.address, pages: event.size)
    case PGTABLE_INVALIDATE_ALL: self = .invalidationOfAll
    case PGTABLE_DATA_CACHE: self = .dataCache(physical: event.address, size: event.size)
    default: self = .instructionCache(physical: event.address, size: event.size)
    }
  }
}

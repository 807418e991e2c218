import CPageTable
import Glibc
import Stage2Sim

/// The kernel's pgtable.c, as oracle/pgtable builds it for one page size.
///
/// A library that is loaded at run time can only be accessed by unsafe code. All of this code is in this file. The
/// library and its memory exist until the process ends.
struct KernelLibrary {
  private let library: pgtable_library
  let granule: Granule

  /// - Parameter directory: The directory with `libpgtable-4K.so`, `-16K` and `-64K`.
  init(_ granule: Granule, in directory: String) throws(LibraryError) {
    let path = "\(directory)/libpgtable-\(granule.name).so"
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
    guard library.page_shift == granule.pageShift else {
      throw LibraryError(
        "\(path) is for pages of \(1 << library.page_shift) bytes: remove it, and oracle/pgtable builds it again"
      )
    }
  }

  // MARK: - The table

  /// Makes a table in fresh memory, in place of the table before.
  func create(_ machine: Machine) {
    precondition(machine.granule == granule)
    library.create(UInt32(machine.ipaBits), machine.hasFWB ? 1 : 0)
  }

  func run(_ operation: Operation) -> Outcome {
    var argument = pgtable_operation(
      kind: operation.kind.rawValue, can_allocate: operation.canAllocate ? 1 : 0,
      byte: UInt32(operation.byte), reserved: 0, address: operation.address,
      size: operation.size, physical: operation.physical,
      protection: operation.protection.rawValue)
    var result = pgtable_result()
    library.run(&argument, &result)
    return Outcome(
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

  private var events: UnsafeBufferPointer<pgtable_event> {
    let state = library.state.pointee
    return UnsafeBufferPointer(start: state.events, count: Int(state.event_count))
  }

  /// Whether the last operation invalidated the TLB of the whole VM.
  var hasInvalidatedAll: Bool {
    events.contains { $0.kind == PGTABLE_INVALIDATE_ALL.rawValue }
  }

  var snapshot: Snapshot {
    let state = library.state.pointee
    return Snapshot(
      words: Array(
        UnsafeBufferPointer(start: state.words, count: pages * granule.entriesPerTable)),
      counts: Array(UnsafeBufferPointer(start: state.counts, count: pages)),
      pagesInUse: Int(state.pages_in_use), events: Array(events))
  }

  /// Whether both sides have the same entries in each page that has been a table, the same reference counts, pages in
  /// use, and events of the last operation.
  func agrees(with model: borrowing Model) -> Bool {
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
      && (state.event_count == 0
        || model.trace.events.withUnsafeBytes {
          memcmp($0.baseAddress!, state.events, $0.count) == 0
        })
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

extension Granule {
  var name: String { "\(pageSize >> 10)K" }

  init?(name: some StringProtocol) {
    guard let granule = Granule.allCases.first(where: { $0.name == name }) else { return nil }
    self = granule
  }
}

/// What the host has room for, so that nothing a guest or its host is told to do takes all memory of the computer that the model
/// runs on. The kernel's own errors say that it is used up.
enum HostLimits {
  /// Physical memory, in bytes.
  static let memory: UInt64 = 4 << 30
  /// Entries of the page tables of the VMM and its children; a huge page takes a table's.
  static let entries = 1 << 21
  /// Children of the VMM (`RLIMIT_NPROC`).
  static let children = 64
}

extension HostMemory {
  /// Tables that the page tables have: one for each huge page, too, for when it is split.
  private var tables: Int { children.reduce(process.directory.count) { $0 + $1.directory.count } }

  /// - Throws: `ENOMEM` where there is no room for so many tables more.
  func checkRoom(forTables more: Int) throws(KernelError) {
    guard tables + more <= HostLimits.entries / granule.entriesPerTable else {
      throw .outOfMemory
    }
  }

  /// Whether a page, huge or not, can be had.
  var hasFreePage: Bool { physical.inUse + hugePageSize <= HostLimits.memory }
}

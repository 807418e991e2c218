import Glibc
import Stage2Sim
import VirtWalkerDevice

/// The stage-2 tables before a call of a hook, for the comparison after the call.
///
/// All entries are kept if there are few tables. Otherwise, the entries on the way to the target and to the address of the access are kept.
struct TableWatch {
  /// An entry that the hook has changed.
  struct Change {
    let offset: UInt64
    let old: Stage2Descriptor
    let new: Stage2Descriptor
  }

  /// The most pages of tables of which all entries are kept.
  private static let mostPages = 64

  private var words: [UInt64] = []
  private var path: [(offset: UInt64, word: UInt64)] = []
  /// The way to the target when the call began.
  private(set) var target: [TableVisit] = []
  private var isWhole = false

  /// Keeps the present entries.
  mutating func note(
    _ stage2: borrowing Stage2PageTable, access: IntermediatePhysicalAddress, base: PhysicalAddress
  ) {
    target = stage2.path(to: HideSeek.target)
    let most = Self.mostPages * stage2.granule.entriesPerPage
    isWhole = stage2.withTableWords { present in
      guard present.count <= most else { return false }
      if words.count == present.count {
        words.withUnsafeMutableBufferPointer {
          $0.baseAddress!.update(from: present.baseAddress!, count: present.count)
        }
      } else {
        words = Array(present)
      }
      return true
    }
    guard !isWhole else { return }
    path = (target + stage2.path(to: access)).map {
      ($0.offset(from: base), $0.descriptor.rawValue)
    }
  }

  /// The entries that are other ones now, at most `most`.
  func changes(in stage2: borrowing Stage2PageTable, most: Int) -> [Change] {
    stage2.withTableWords { present in
      var changes: [Change] = []
      func compare(_ offset: Int, _ old: UInt64) {
        let new = present[offset]
        guard new != old, changes.count < most else { return }
        changes.append(
          Change(
            offset: UInt64(offset) * 8, old: Stage2Descriptor(rawValue: old),
            new: Stage2Descriptor(rawValue: new)))
      }
      guard isWhole else {
        var seen: Set<UInt64> = []
        for (offset, word) in path where offset / 8 < UInt64(present.count) {
          if seen.insert(offset).inserted { compare(Int(offset / 8), word) }
        }
        return changes
      }
      words.withUnsafeBufferPointer { words in
        let count = min(words.count, present.count)
        guard !isEqual(words.baseAddress!, present.baseAddress!, count: count) else { return }
        for offset in 0..<count { compare(offset, words[offset]) }
      }
      return changes
    }
  }

  /// The entry before the call; nil if it was not kept.
  func old(at offset: UInt64) -> Stage2Descriptor? {
    if isWhole {
      return offset / 8 < UInt64(words.count)
        ? Stage2Descriptor(rawValue: words[Int(offset / 8)]) : nil
    }
    return path.first { $0.offset == offset }.map { Stage2Descriptor(rawValue: $0.word) }
  }

  /// The place of an entry in words: the address that it is for, and its level, if the tables say so.
  func place(
    of offset: UInt64, in tables: SharedTables
  ) -> (address: IntermediatePhysicalAddress, level: Int)? {
    guard isWhole else { return nil }
    let granule = tables.granule
    let pageBytes = granule.pageSize
    let start = (tables.pgd - tables.base) / 8
    let rootShift = granule.shift(level: tables.startLevel)
    let rootEntries = UInt64(1) << UInt64(max(0, tables.ipaBits - rootShift))
    let word = offset / 8
    if word >= start, word < start + rootEntries {
      return (IntermediatePhysicalAddress((word - start) << UInt64(rootShift)), tables.startLevel)
    }
    // The table that the entry stands in, and the entry that points to the table.
    let perTable = pageBytes / 8
    var visited: Set<UInt64> = []
    var queue: [(first: UInt64, count: UInt64, level: Int, address: UInt64)] = [
      (start, rootEntries, tables.startLevel, 0)
    ]
    while let (first, count, level, address) = queue.popLast() {
      guard visited.insert(first).inserted, first + count <= UInt64(words.count) else { continue }
      let shift = UInt64(granule.shift(level: level))
      for index in 0..<count {
        let entry = Stage2Descriptor(rawValue: words[Int(first + index)])
        let entryAddress = address + index << shift
        if first + index == word {
          return (IntermediatePhysicalAddress(entryAddress), level)
        }
        guard entry.isTable(level: level) else { continue }
        let child = (entry.outputAddress(granule) &- tables.base) / 8
        if child < UInt64(words.count) { queue.append((child, perTable, level + 1, entryAddress)) }
      }
    }
    return nil
  }

  private func isEqual(
    _ left: UnsafePointer<UInt64>, _ right: UnsafePointer<UInt64>, count: Int
  ) -> Bool {
    memcmp(left, right, count * 8) == 0
  }
}

extension TableVisit {
  /// The place of the entry in the memory of the tables, in bytes.
  func offset(from base: PhysicalAddress) -> UInt64 { (table - base) + UInt64(index) * 8 }
}

extension Granule {
  fileprivate var entriesPerPage: Int { Int(pageSize / 8) }
}

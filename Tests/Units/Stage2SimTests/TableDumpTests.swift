import Foundation
import PageTableCases
import SeededRandom
import Stage2Sim
import Testing

/// Tests of tables that are loaded from a dump: the text of `stage2_page_tables`.
@Suite struct TableDumpTests {
  private static let tests = URL(filePath: #filePath).deletingLastPathComponent()
    .deletingLastPathComponent().deletingLastPathComponent()

  private static func files(in folder: String) throws -> [URL] {
    let enumerator = try #require(
      FileManager.default.enumerator(
        at: tests.appending(path: folder), includingPropertiesForKeys: nil))
    return enumerator.compactMap { $0 as? URL }.filter { $0.pathExtension == "txt" }
      .sorted { $0.path < $1.path }
  }

  private func load(_ text: String, on machine: TableMachine) throws -> Stage2PageTable {
    try DumpReader.table(of: TextLines(Array(text.utf8)), on: machine)
  }

  /// Expects that the table of the text gives the same text, and that its tables have as many references as entries.
  private func expectRoundTrip(
    _ text: String, on machine: TableMachine, _ comment: Comment
  ) throws {
    let table = try load(text, on: machine)
    #expect(table.dump == text, comment)
    for (page, count) in table.memory.counts.enumerated() {
      let entries = table.memory.words[
        page * machine.granule.entriesPerTable..<(page + 1) * machine.granule.entriesPerTable]
      let counted = entries.count {
        machine.kernel == .linux510 ? $0 & Stage2Descriptor.valid != 0 : $0 != 0
      }
      #expect(count == 1 + counted, "page \(page), \(comment)")
    }
  }

  /// Each table of each case, after each operation, if all of the table can be dumped.
  @Test func tablesOfCases() throws {
    var (tried, left) = (0, 0)
    for file in try Self.files(in: "PageTableCases") {
      let played = try TableCase(String(contentsOf: file, encoding: .utf8))
      var player = CasePlayer(played.machine)
      for (index, operation) in played.operations.enumerated() where operation.kind != .destroy {
        _ = player.run(operation)
        // A walk over a table that was freed in use ends where it leaves table memory.
        var end: UInt64 = 0
        player.table.forEachLeaf { address, leaf in
          end = address.rawValue + played.machine.granule.size(level: leaf.level)
        }
        guard end == 1 << UInt64(played.machine.ipaBits) else {
          left += 1
          continue
        }
        tried += 1
        try expectRoundTrip(
          player.table.dump, on: played.machine,
          "\(file.lastPathComponent), operation \(index + 1)")
      }
    }
    #expect(tried >= 200)
    #expect(left <= 10)
  }

  /// The files that a real kernel printed.
  @Test func dumpsOfTheKernel() throws {
    var tried = 0
    for file in try Self.files(in: "PageTableDumps") {
      let lines = try String(contentsOf: file, encoding: .utf8).split(separator: "\n")
      let words = try #require(lines.first { $0.hasPrefix("machine ") }).split(separator: " ")
      func value(_ key: String) -> Substring? {
        words.first { $0.hasPrefix(key) }?.dropFirst(key.count)
      }
      let machine = TableMachine(
        granule: value("granule=").flatMap { Granule(String($0)) } ?? .kib4,
        ipaBits: value("ipa=").flatMap { Int($0) } ?? 40)
      for part in lines.split(separator: "  stage2_page_tables:").dropFirst() {
        let text = part.prefix { $0.hasPrefix("  ") }.map { $0.dropFirst(2) + "\n" }.joined()
        tried += 1
        try expectRoundTrip(text, on: machine, "\(file.lastPathComponent), dump \(tried)")
      }
    }
    #expect(tried >= 100)
  }

  /// Random entries, with each granule and size.
  @Test(arguments: KernelVersion.allCases, Granule.allCases)
  func randomTables(kernel: KernelVersion, granule: Granule) throws {
    for ipaBits in [32, 36, 39, 40, 42, 44, 48] {
      var random = SplitMix64(seed: UInt64(ipaBits))
      var loader = TableLoader(
        TableMachine(kernel: kernel, granule: granule, ipaBits: ipaBits).table)
      let start = loader.table.startLevel
      let limit = UInt64(1) << UInt64(ipaBits)
      var isFull = false
      for _ in 0..<60 where !isFull {
        let from = loader.end.rawValue
        let levels = (start...Granule.lastLevel).filter { from % granule.size(level: $0) == 0 }
        let level = levels.randomElement(using: &random)!
        let size = granule.size(level: level)
        let table = granule.size(level: level - 1)
        var end = from + size * .random(in: 1...4, using: &random)
        if .random(using: &random) { end = (from / table + 1) * table }
        if end > (from / table + 1) * table { end = (from / table + 1) * table }
        if end >= limit {
          isFull = true
          continue
        }
        var attributes: UInt64 = 0
        if granule.allowsLeaf(level: level), .random(using: &random) {
          attributes = loader.table.normalMemory(level: level)
          attributes |= .random(in: 0...3, using: &random) << 6
          attributes |= .random(in: 0...3, using: &random) << 53
          attributes |= .random(in: 0...1, using: &random) << 10
        } else if Int.random(in: 0..<4, using: &random) == 0 {
          attributes = .random(in: 0...3, using: &random) << 53 | Stage2Descriptor.accessFlag
        }
        loader.append(to: .init(end), level: level, attributes: attributes)
      }
      // The last range ends with the last table.
      for level in stride(from: Granule.lastLevel, to: start, by: -1) {
        let table = granule.size(level: level - 1)
        let from = loader.end.rawValue
        let end = min((from + table - 1) / table * table, limit)
        guard from < end, from % granule.size(level: level) == 0 else { continue }
        loader.append(to: .init(end), level: level, attributes: 0)
      }
      let machine = TableMachine(kernel: kernel, granule: granule, ipaBits: ipaBits)
      let text = loader.table.dump
      #expect(try load(text, on: machine).dump == text)
    }
  }

  private static let machine = TableMachine(granule: .kib4, ipaBits: 40)

  /// The bits that a dump does not have.
  @Test func unknownBits() throws {
    let text = """
      ---[ Guest IPA ]---
      0x0000000000000000-0x0000000040000000           1G 1
      0x0000000040000000-0x0000000040001000           4K 3   R W PXNUXN AF    
      0x0000000040001000-0x0000000040200000        2044K 3
      0x0000000040200000-0x0000000040400000           2M 2   R   px ux  AF BLK

      """
    let table = try load(
      text + "0x0000000040400000-0x0000000080000000        1020M 2\n", on: Self.machine)
    #expect(try table.leaf(for: 0x4000_0000).descriptor.rawValue == 0x0040_0000_4000_07ff)
    #expect(try table.leaf(for: 0x4020_0000).descriptor.rawValue == 0x4020_077d)
    #expect(try table.leaf(for: 0x4040_0000).level == 2)
    // Without the last line, the text is that of a file that was cut off.
    #expect(throws: CaseError.self) { try load(text, on: Self.machine) }

    var lpa2 = TableMachine(kernel: .linux73, granule: .kib4, ipaBits: 52)
    lpa2.has52Bits = true
    let high = """
      ---[ Guest IPA ]---
      0x0000000000000000-0x000c000000000000           3P 0
      0x000c000000000000-0x000c000040000000           1G 1   R   px ux  AF BLK
      0x000c000040000000-0x000c008000000000         511G 1

      """
    let wide = try load(high, on: lpa2)
    #expect(wide.dump == high)
    // Bits [51:50] of the address are in bits [9:8], in the place of SH.
    #expect(try wide.leaf(for: .init(0xc_0000_0000_0000)).descriptor.rawValue == 0x77d)
  }

  /// Linux 7.3 prints the last range, too, and 6.12 has one letter for XN, which it prints for memory that cannot be executed.
  @Test func formsOfOtherVersions() throws {
    let ranges = """
      ---[ Guest IPA ]---
      0x0000000000000000-0x0000000040000000           1G 1
      0x0000000040000000-0x0000000080000000           1G 1   R W PXNUXN AF BLK

      """
    let last = "0x0000000080000000-0x0000010000000000        1022G 1\n"
    #expect(try load(ranges + last, on: Self.machine).dump == ranges)
    let old = ranges.replacing("PXNUXN", with: "X")
    #expect(try load(old, on: Self.machine).dump == ranges)
    let empty = "---[ Guest IPA ]---\n0x0000000000000000-0x0000010000000000           1T 1\n"
    #expect(try load(empty, on: Self.machine).dump == "---[ Guest IPA ]---\n")
  }

  @Test(arguments: [
    ("", "1: the first line is not '---[ Guest IPA ]---'"),
    ("VTCR: 0x1 VTTBR: 0x2 s2: enabled", "1: the first line is not"),
    ("\nhello", "2: 'hello' is not a range"),
    ("\n0x0-0x40000000 1G", "2: '0x0-0x40000000 1G' is not a range"),
    ("\n0x0-0x11111111111111111 1G 1", "is not a range"),
    ("\n0x0-0x+1000 4K 3", "is not a range"),
    (
      "\n0x40000000-0x80000000 1G 1",
      "2: the range begins at 0x40000000, and the range above ends at 0x0"
    ),
    (
      "\n0x0-0x80000000 2G 1\n0x40000000-0xc0000000 2G 1",
      "3: the range begins at 0x40000000, before 0x80000000"
    ),
    ("\n0x0-0x0 0K 1", "2: the range ends at 0x0, before it begins"),
    ("\n0x0-0x40000000 1G 1\n0x40000000-0x0 1G 1", "3: the range ends at 0x0, before it begins"),
    ("\n0x0-0x40000000 2G 1", "2: the size is 2G, and the range has 1G"),
    (
      "\n0x0-0x20000000000 2T 1",
      "2: the range ends at 0x20000000000, beyond 40 bits: give the machine the number of the file ipa_range, ipa=41"
    ),
    ("\n0x0-0xfffffffffffffc00 18014398509481983K 1", "beyond 40 bits"),
    (
      "\n0x0-0x8000000000 512G 0",
      "2: there is no level 0: a table with ipa=40 granule=4K has levels 1 to 3"
    ),
    ("\n0x0-0x1000 4K 4", "2: there is no level 4"),
    ("\n0x0-0x1000 4K -1", "2: there is no level -1"),
    (
      "\n0x0-0x1000 4K 2",
      "2: an entry of level 2 maps 2M with granule=4K, and the range is not a number of these"
    ),
    ("\n0x0-0x1000 4K 3 R W PXNUXN AF\n0x1000-0x200000 2044K 2", "3: an entry of level 2 maps 2M"),
    ("\n0x0-0x10000000000 1T 3", "2: the range needs tables of more than 256M"),
    ("\n0x0-0x10000000000 1T 3 R W PXNUXN AF", "2: the range needs tables of more than 256M"),
    ("\n0x0-0x1000 4K 3 R W PXNUXN AF BLK", "2: level 3 has pages, and no BLK"),
    (
      "\n0x0-0x200000 2M 2 R W PXNUXN AF",
      "2: a valid entry of level 2 is a block or points to a table: BLK is missing"
    ),
    (
      "\n0x0-0x200000 2M 2 F R W PXNUXN AF BLK",
      "2: an entry cannot be both invalid (F) and a block (BLK)"
    ),
    ("\n0x0-0x1000 4K 3 F X", "2: Linux 6.12 prints no bits of an invalid entry"),
    (
      "\n0x0-0x1000 4K 3 R W X AF\n0x1000-0x2000 4K 3 R PXNUXN AF",
      "3: the file has XN in the forms of two versions"
    ),
    ("\n0x0-0x1000 4K 3 W R PXNUXN AF", "2: 'R' is not expected here"),
    ("\n0x0-0x1000 4K 3 R W px AF", "2: 'AF' is not expected here"),
    ("\n0x0-0x1000 4K 3 R W NX AF", "2: 'NX' is not expected here"),
    (
      "\n0x0-0x40000000 1G 1\n0x40000000-0x80000000 1G 1",
      "3: the range has the level and the attributes of the range above"
    ),
    ("\n0x0-0x1000 4K 3 R px ux AF\n0x1000-0x2000 4K 3 R px ux AF", "3: the range has the level"),
    ("\n0x0-0x1000 4K 3 F px ux\n0x1000-0x2000 4K 3 F px ux", "3: the range has the level"),
    (
      "\n0x0-0x1000 4K 3 R W px ux AF",
      "2: the file ends at 0x1000, in the middle of a table: it is cut off"
    ),
    ("\n" + String(repeating: " ", count: 300), "2: the line is too long"),
  ])
  func whatIsNoTableIsRefused(text: String, words: String) throws {
    let text = text.hasPrefix("\n") ? "---[ Guest IPA ]---" + text + "\n" : text
    let error = try #require(throws: CaseError.self) { try load(text, on: Self.machine) }
    #expect("\(error)".contains(words), "\(error)")
  }

  /// Two ranges of invalid entries can differ in bit 1 alone, which the kernel does not print for them.
  @Test func invalidEntries() throws {
    let text = """
      ---[ Guest IPA ]---
      0x0000000000000000-0x0000000000001000           4K 3 F R   PXNUXN AF    
      0x0000000000001000-0x0000000000002000           4K 3 F R   PXNUXN AF    
      0x0000000000002000-0x0000000000003000           4K 3 F     px ux        
      0x0000000000003000-0x0000000000200000        2036K 3
      0x0000000000200000-0x0000000040000000        1022M 2

      """
    let table = try load(text, on: Self.machine)
    #expect(table.dump == text)
    #expect(try table.leaf(for: 0).descriptor.rawValue == 0x0040_0000_0000_0442)
    #expect(try table.leaf(for: 0x1000).descriptor.rawValue == 0x0040_0000_0000_0440)
    #expect(try table.leaf(for: 0x2000).descriptor.rawValue == 2)
  }

  /// Random changes of a dump give an error or a table that gives a dump again.
  @Test func hostileText() throws {
    let file = try #require(
      try Self.files(in: "PageTableDumps").first { $0.lastPathComponent == "huge-a76.txt" })
    let lines = try String(contentsOf: file, encoding: .utf8).split(separator: "\n")
    let dump = lines.split(separator: "  stage2_page_tables:").last!
      .prefix { $0.hasPrefix("  ") }.map { $0.dropFirst(2) + "\n" }.joined()
    var refused = 0
    var random = SplitMix64(seed: 1)
    for _ in 0..<500 {
      var bytes = Array(dump.utf8)
      for _ in 0..<Int.random(in: 1...3, using: &random) {
        let index = Int.random(in: 20..<bytes.count, using: &random)
        switch Int.random(in: 0..<4, using: &random) {
        case 0: bytes.remove(at: index)
        case 1: bytes[index] = Array("0123456789abcdefFRWX \n".utf8).randomElement(using: &random)!
        case 2: bytes.removeLast(bytes.count - index)
        default:
          let end = min(bytes.count, index + 80)
          bytes.insert(contentsOf: bytes[index..<end], at: index)
        }
        if bytes.count < 30 { break }
      }
      do {
        let table = try DumpReader.table(of: TextLines(bytes), on: Self.machine)
        _ = table.dump
      } catch is CaseError {
        refused += 1
      }
    }
    #expect(refused > 300)
  }
}

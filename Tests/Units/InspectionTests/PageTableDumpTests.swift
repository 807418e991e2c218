import Inspection
import Stage2Sim
import Testing
import VirtWalkerDevice

/// Tests of `stage2_page_tables`, `stage2_levels` and `ipa_range`.
@Suite struct PageTableDumpTests {
  /// The fields of one line of the file.
  private struct Range {
    let start: UInt64
    let end: UInt64
    let level: Int
    let attributes: Substring

    init(_ line: Substring) throws {
      let match = try #require(
        line.wholeMatch(of: /0x([0-9a-f]{16})-0x([0-9a-f]{16})   +([0-9]+)([KMGTPE]) ([0-3])(.*)/),
        "\(line)")
      start = try #require(UInt64(match.output.1, radix: 16))
      end = try #require(UInt64(match.output.2, radix: 16))
      level = try #require(Int(match.output.5))
      attributes = match.output.6
      let unit: [Substring: UInt64] = ["K": 10, "M": 20, "G": 30, "T": 40]
      let size = try #require(UInt64(match.output.3)) << unit[match.output.4, default: 63]
      #expect(size == end - start, "\(line)")
    }
  }

  /// Each range describes its leaves correctly, and no two adjacent ranges have the same description.
  @Test(
    arguments: Backing.allCases, [(Granule.kib4, 40), (.kib16, 36), (.kib64, 48), (.kib4, 48)])
  func showsEachLeaf(backing: Backing, shape: (Granule, Int)) throws {
    // With a granule of 64K, a huge page has 512 MiB.
    let device = try Device(
      .init(cpu: .max, granule: shape.0, ipaBits: shape.1, backing: backing, memorySize: 1 << 30))
    for address in ["0x40000000", "0x40010000", "0x40420000", "0x60000000"] {
      try device.write("guest ldr w0,[\(address)]\n", to: "control")
    }
    try device.write("guest str w0,[0x40800000]\nhost age 0x40800000\n", to: "control")
    let machine = device.engine.virtualMachine
    #expect(try device.read("ipa_range") == "\(shape.1)\n")
    let levels = 4 - machine.stage2.startLevel
    #expect(try device.read("stage2_levels") == "\(levels)\n")

    let lines = try device.lines("stage2_page_tables")
    #expect(lines[0] == "---[ Guest IPA ]---")
    let ranges = try lines.dropFirst().map(Range.init)
    #expect(ranges.count >= 3)
    var end: UInt64 = 0
    for range in ranges {
      #expect(range.start == end)
      end = range.end
      let granule = shape.0
      for address in [range.start, (range.start + range.end) / 2, range.end - granule.pageSize] {
        let leaf = try machine.leaf(for: .init(address))
        let entry = leaf.descriptor
        #expect(leaf.level == range.level)
        guard entry.rawValue != 0 else {
          #expect(range.attributes == "")
          continue
        }
        let words = range.attributes.split(separator: " ")
        #expect(words.contains("F") == !entry.isValid)
        #expect(words.contains("R") == (entry.rawValue & Stage2Descriptor.read != 0))
        #expect(words.contains("W") == (entry.rawValue & Stage2Descriptor.write != 0))
        #expect(words.contains("AF") == (entry.rawValue & Stage2Descriptor.accessFlag != 0))
        #expect(words.contains("BLK") == (leaf.level < 3))
        #expect(words.contains("PXNUXN") == !entry.isExecutable)
      }
    }
    // The last range, up to the end of the IPA space, is not printed, as in the kernel.
    #expect(try machine.leaf(for: .init(end)).descriptor.rawValue == 0)
    #expect(
      zip(ranges, ranges.dropFirst()).allSatisfy {
        ($0.level, $0.attributes) != ($1.level, $1.attributes)
      })
  }

  /// The four values of XN[1:0], as FEAT_XNX defines them. A byte can hide each of them.
  @Test(arguments: [(0x00, "px ux "), (0x04, "PXNux "), (0x08, "PXNUXN"), (0x0c, "px UXN")])
  func executeNever(byte: UInt8, text: String) throws {
    let device = try Device(.init(backing: .anonymous))
    try device.hide(byte)
    #expect(
      try device.read("stage2_page_tables").contains(
        "0x0000000040000000-0x0000000040001000           4K 3   R W \(text) AF    \n"))
  }
}

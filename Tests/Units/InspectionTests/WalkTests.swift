import Foundation
import FoundationXML
import Inspection
import Stage2Sim
import Testing
import VirtWalkerDevice

@Suite struct WalkTests {
  @Test(arguments: CPUModel.allCases, Backing.allCases)
  func showsTheEntry(cpu: CPUModel, backing: Backing) throws {
    let device = try Device(.init(cpu: cpu, backing: backing))
    for byte: UInt8 in [0x00, 0x41, 0xff, 0x3c] {
      try device.hide(byte)
      let leaf = try device.engine.virtualMachine.leaf(for: HideSeek.target)
      #expect(try device.read("pte") == "\(leaf.descriptor)\n")
      let lines = try device.lines("walk")
      // The picture has 64 bits in the order of the entry, with a mark below the byte.
      let bits = try #require(
        lines.first { $0.wholeMatch(of: /[01]{5} [01]{8} [01 ]+/) != nil })
      let value = try #require(UInt64(bits.filter { $0 != " " }, radix: 2))
      #expect(bits.filter { $0 != " " }.count == 64 && value == leaf.descriptor.rawValue)
      #expect(UInt8(bits.split(separator: " ")[1], radix: 2) == byte)
      let hex = String(byte, radix: 16)
      let mark = "hidden byte 0x\(hex.count == 1 ? "0" : "")\(hex)"
      #expect(lines.contains { $0.hasPrefix("      ======== \(mark)") })
      // The tables from the start level down to the leaf.
      let path = device.engine.virtualMachine.stage2.path(to: HideSeek.target)
      #expect(path.last?.descriptor == leaf.descriptor && path.last?.level == leaf.level)
      for visit in path {
        #expect(lines.contains { $0.contains(" \(visit.index)  \(visit.descriptor)  ") })
      }
      #expect(
        lines.last?.contains("virt_walker_hide: byte 0x\(hex.count == 1 ? "0" : "")\(hex) ")
          == true)
      #expect(lines.allSatisfy { $0.utf8.count <= 110 && !$0.hasSuffix(" ") })
    }
  }

  @Test(arguments: [
    ("executable", 0x00), ("execute-never", 0x08), ("EL1 may execute, EL0 may not", 0x0c),
    ("EL0 may execute, EL1 may not", 0x04), ("one of a run", 0x02),
  ])
  func saysWhatTheBitsMean(text: String, byte: UInt8) throws {
    let cpu: CPUModel = text == "executable" ? .cortexA72 : .cortexA76
    let device = try Device(.init(cpu: cpu, backing: .anonymous))
    try device.hide(byte)
    #expect(try device.read("walk").contains(text))
  }

  @Test func anEmptyEntry() throws {
    let device = try Device()
    try device.write("host madvise dontneed 0x40000000 0x200000", to: "control")
    #expect(try device.read("pte") == "0000000000000000\n")
    #expect(try device.read("walk").contains("  0000000000000000  empty\n"))
    #expect(try device.read("walk").contains("the CPU ignores all other bits\n"))
    try device.hide(0x08)
    #expect(try device.read("walk").contains("  0040000000000000  invalid, but not empty\n"))
    #expect(try device.read("walk.svg").contains(">no memory<"))
  }

  /// The drawing is well-formed, stays within its bounds, and has each bit of the entry, even if the byte is a special
  /// character of XML.
  @Test(arguments: [0x41, 0x26, 0x3c, 0x3e, 0x22, 0x00])
  func drawing(byte: UInt8) throws {
    for (ipaBits, levels) in [(32, 1), (40, 2), (48, 3)] {
      let device = try Device(.init(cpu: .max, ipaBits: ipaBits, backing: .huge))
      try device.hide(byte)
      let reader = DrawingReader()
      let parser = XMLParser(data: Data(try device.read("walk.svg").utf8))
      parser.delegate = reader
      #expect(parser.parse(), "\(String(describing: parser.parserError))")
      #expect(reader.outside == 0)
      let entry = try device.engine.virtualMachine.leaf(for: HideSeek.target).descriptor
      let bits = reader.texts.filter { $0.y == 386 && ["0", "1"].contains($0.text) }
        .sorted { $0.x < $1.x }.map(\.text).joined()
      #expect(UInt64(bits, radix: 2) == entry.rawValue && bits.count == 64)
      #expect(
        reader.texts.count { $0.text.hasPrefix("level ") && $0.text.hasSuffix(" table") } == levels)
      let character = (0x20...0x7e).contains(byte) ? " '\(Character(UnicodeScalar(byte)))'" : ""
      #expect(
        reader.texts.contains {
          $0.text.hasSuffix(character) && $0.text.hasPrefix("hidden byte 0x")
        })
    }
  }

  private final class DrawingReader: NSObject, XMLParserDelegate {
    var texts: [(text: String, x: Double, y: Double)] = []
    /// The number of elements that begin outside the picture.
    var outside = 0
    private var isInText = false

    func parser(
      _ parser: XMLParser, didStartElement name: String, namespaceURI: String?,
      qualifiedName: String?, attributes: [String: String]
    ) {
      isInText = name == "text"
      guard let x = attributes["x"].flatMap(Double.init),
        let y = attributes["y"].flatMap(Double.init)
      else { return }
      if !(0...960).contains(x) || !(0...500).contains(y) { outside += 1 }
      if isInText { texts.append(("", x, y)) }
    }

    func parser(_ parser: XMLParser, foundCharacters string: String) {
      if isInText { texts[texts.count - 1].text += string }
    }

    func parser(
      _ parser: XMLParser, didEndElement name: String, namespaceURI: String?,
      qualifiedName: String?
    ) { isInText = false }
  }
}

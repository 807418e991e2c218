import Scenarios
import Stage2Sim
import VirtWalkerDevice

extension WalkReport {
  /// The walk as a drawing in SVG: the address, the tables on the way, and the bits of the entry.
  var drawing: String {
    var drawing = Drawing()
    drawing.text(
      "Stage-2 walk of guest physical address \(hex(HideSeek.target))", x: Drawing.margin, y: 36,
      size: 20, weight: "bold")
    drawing.text(
      "\(configuration.granule) granule, \(configuration.ipaBits)-bit IPA, start level \(startLevel)",
      x: Drawing.margin, y: 56, size: 13, color: Drawing.quiet)
    drawAddress(in: &drawing)
    drawTables(in: &drawing)
    drawEntry(in: &drawing)
    return drawing.description
  }

  // MARK: - The address

  /// Draws the address in binary, divided into the index of each table and the offset.
  private func drawAddress(in drawing: inout Drawing) {
    let granule = configuration.granule
    var parts: [(title: String, digits: String, color: String)] = []
    var high = configuration.ipaBits
    for visit in path {
      let low = granule.shift(level: visit.level)
      parts.append(
        (
          "level \(visit.level): \(visit.index)", Self.bits(of: HideSeek.target, high - 1, low),
          Drawing.color(level: visit.level)
        ))
      high = low
    }
    parts.append(("offset", Self.bits(of: HideSeek.target, high - 1, 0), Drawing.quiet))

    let cell: Double = 14
    var x = Drawing.margin + 36
    drawing.text("IPA", x: Drawing.margin, y: 96, weight: "bold")
    for part in parts {
      let width = cell * Double(part.digits.utf8.count)
      drawing.box(x: x, y: 80, width: width, height: 24, stroke: part.color)
      for (index, digit) in part.digits.enumerated() {
        drawing.text(
          String(digit), x: x + cell * (Double(index) + 0.5), y: 97, anchor: "middle")
      }
      drawing.text(
        part.title, x: x + width / 2, y: 122, size: 13, anchor: "middle", color: part.color)
      x += width + 6
    }
  }

  private static func bits(of address: IntermediatePhysicalAddress, _ high: Int, _ low: Int)
    -> String
  {
    let digits = String(
      address.rawValue >> UInt64(low) & (1 << UInt64(high - low + 1) - 1), radix: 2)
    return String(repeating: "0", count: high - low + 1 - digits.utf8.count) + digits
  }

  // MARK: - The tables

  private func drawTables(in drawing: inout Drawing) {
    let count = Double(path.count + 1)
    let gap: Double = 36
    let width = (Drawing.width - 2 * Drawing.margin - gap * (count - 1)) / count
    let top: Double = 176
    for (column, visit) in path.enumerated() {
      let x = Drawing.margin + Double(column) * (width + gap)
      let color = Drawing.color(level: visit.level)
      drawing.text("level \(visit.level) table", x: x, y: top - 22, weight: "bold", color: color)
      drawing.text(hex(visit.table), x: x, y: top - 6, size: 12, color: Drawing.quiet)
      drawing.box(x: x, y: top, width: width, height: 120, stroke: color)
      drawing.text("…", x: x + 10, y: top + 26, color: Drawing.quiet)
      drawing.box(
        x: x, y: top + 40, width: width, height: 40, stroke: color, fill: color, opacity: 0.16)
      drawing.text("[\(visit.index)]", x: x + 8, y: top + 56, size: 12, color: color)
      drawing.text(
        "\(visit.descriptor)", x: x + width - 8, y: top + 72, size: 12, anchor: "end")
      drawing.text("…", x: x + 10, y: top + 104, color: Drawing.quiet)
      let goesOn = column < path.count - 1 || isMapping
      if goesOn {
        drawing.arrow(x: x + width + 3, y: top + 60, to: x + width + gap - 4)
      }
    }
    let x = Drawing.margin + Double(path.count) * (width + gap)
    if isMapping {
      let size = configuration.granule.size(level: leaf.level)
      drawing.text(
        "\(leaf.level == Granule.lastLevel ? "page" : "block") of \(Self.size(size))", x: x,
        y: top - 22, weight: "bold")
      drawing.text(
        hex(entry.outputAddress(configuration.granule)), x: x, y: top - 6, size: 12,
        color: Drawing.quiet)
      drawing.box(
        x: x, y: top, width: width, height: 120, stroke: "#333", fill: "#333", opacity: 0.06)
      drawing.text("guest memory", x: x + width / 2, y: top + 65, anchor: "middle")
    } else {
      drawing.text("no memory", x: x, y: top + 56, weight: "bold", color: Drawing.alarm)
      drawing.text("the next access faults", x: x, y: top + 74, size: 12, color: Drawing.alarm)
    }
  }

  private var isMapping: Bool { entry.isLeaf(level: leaf.level) }

  // MARK: - The entry

  private func drawEntry(in drawing: inout Drawing) {
    let top: Double = 366
    let cell = (Drawing.width - 2 * Drawing.margin) / 64
    func x(ofBit bit: Int) -> Double { Drawing.margin + cell * Double(63 - bit) }

    drawing.text(
      "the entry: \(entry), level \(leaf.level)", x: Drawing.margin, y: top - 24, weight: "bold")
    for (index, field) in DescriptorField.sideBySide.enumerated() {
      let isByte = field == .byte
      let (high, low) = (field.bits.upperBound, field.bits.lowerBound)
      let left = x(ofBit: high)
      let width = cell * Double(field.bits.count)
      drawing.box(
        x: left, y: top, width: width, height: 30, stroke: "#333",
        fill: isByte ? Drawing.highlight : index % 2 == 0 ? "#eee" : "#fff")
      for bit in field.bits {
        drawing.text(
          entry.rawValue >> UInt64(bit) & 1 == 0 ? "0" : "1", x: x(ofBit: bit) + cell / 2,
          y: top + 20, weight: isByte ? "bold" : "normal", anchor: "middle")
      }
      for bit in high == low ? [high] : [high, low] {
        drawing.text(
          "\(bit)", x: x(ofBit: bit) + cell / 2, y: top - 5, size: 9, anchor: "middle",
          color: Drawing.quiet)
      }
      guard !field.name.isEmpty, !isByte else { continue }
      // The names stand below at different depths, because fields are narrow.
      let depth = top + 54 + 16 * Double(index % 3)
      drawing.line(x: left + width / 2, y: top + 30, toY: depth - 11)
      drawing.text(
        field.name, x: min(left + width / 2, Drawing.width - Drawing.margin - 16), y: depth,
        size: 11, anchor: "middle",
        color: Drawing.quiet)
    }

    let left = x(ofBit: DescriptorField.byte.bits.upperBound)
    let byte = entry.hiddenByte
    drawing.text(
      "hidden byte \(hex(UInt64(byte), digits: 2))\(Self.character(byte))", x: left, y: top + 118,
      size: 18, weight: "bold", color: Drawing.alarm)
    for bit in HiddenBit.allCases {
      drawing.text(
        bit.field, x: x(ofBit: bit.entryBit) + cell / 2 + 3, y: top + 36, size: 10, turned: true,
        color: Drawing.quiet)
    }
  }
}

/// An SVG of parts in one style: Latin text in a font with digits of one width.
private struct Drawing: CustomStringConvertible {
  static let width: Double = 960
  static let margin: Double = 32
  static let quiet = "#666"
  static let alarm = "#b3261e"
  static let highlight = "#ffd54a"

  static func color(level: Int) -> String { ["#6a3fa0", "#1a5fb4", "#26734d", "#a34a00"][level] }

  private var parts: [String] = []

  mutating func box(
    x: Double, y: Double, width: Double, height: Double, stroke: String, fill: String = "none",
    opacity: Double = 1
  ) {
    parts.append(
      "<rect x=\"\(number(x))\" y=\"\(number(y))\" width=\"\(number(width))\" height=\"\(number(height))\" stroke=\"\(stroke)\" fill=\"\(fill)\" fill-opacity=\"\(opacity)\"/>"
    )
  }

  mutating func line(x: Double, y: Double, toY: Double) {
    parts.append(
      "<line x1=\"\(number(x))\" y1=\"\(number(y))\" x2=\"\(number(x))\" y2=\"\(number(toY))\" stroke=\"#999\"/>"
    )
  }

  /// Adds an arrow to the right.
  mutating func arrow(x: Double, y: Double, to end: Double) {
    parts.append(
      "<path d=\"M\(number(x)) \(number(y))H\(number(end))m-7 -5l7 5l-7 5\" stroke=\"#333\" stroke-width=\"2\" fill=\"none\"/>"
    )
  }

  /// - Parameters:
  ///   - anchor: The part of the text at `x`: `start`, `middle` or `end`.
  ///   - turned: Whether the text goes from the top down.
  mutating func text(
    _ text: String, x: Double, y: Double, size: Int = 14, weight: String = "normal",
    anchor: String = "start", turned: Bool = false, color: String = "#000"
  ) {
    let escaped = text.map { ["&": "&amp;", "<": "&lt;", ">": "&gt;"][$0] ?? String($0) }.joined()
    let turn = turned ? " transform=\"rotate(90 \(number(x)) \(number(y)))\"" : ""
    parts.append(
      "<text x=\"\(number(x))\" y=\"\(number(y))\" font-size=\"\(size)\" font-weight=\"\(weight)\" text-anchor=\"\(anchor)\" fill=\"\(color)\"\(turn)>\(escaped)</text>"
    )
  }

  private func number(_ value: Double) -> String { "\((value * 10).rounded() / 10)" }

  var description: String {
    """
    <?xml version="1.0" encoding="UTF-8"?>
    <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 500" width="960" height="500" font-family="DejaVu Sans Mono, Menlo, Consolas, monospace">
    <rect width="960" height="500" fill="#fff"/>
    \(parts.joined(separator: "\n"))
    </svg>

    """
  }
}

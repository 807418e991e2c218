/// The texts of the files of a tree.
struct WatchedTexts {
  var walk: String
  var stats: String
  /// The new lines of `trace_pipe` since the last time.
  var trace: String
  /// Whether `trace_pipe` has more lines.
  var isBehind = false
}

/// The view of `watch`: it makes the lines of a screen from the texts of a tree.
struct WatchView {
  /// The node, and a description of its machine.
  let title: String
  var isPaused = false
  private(set) var isBehind = false
  /// The parts of the walk, which empty lines separate: heading, table, picture, fields.
  private var walk: [[Line]] = []
  private var counters: [Counter] = []
  private var events: [Line] = []

  private struct Counter {
    let name: String
    let value: String
    /// The number of further updates in which the counter is marked as changed.
    let marks: Int
  }

  /// The number of events that are kept, more than a screen has rows.
  private static let keptEvents = 500

  init(title: String) { self.title = title }

  /// - Parameter lately: The number of updates in which a changed counter is marked.
  mutating func update(_ texts: WatchedTexts, lately: Int) {
    isBehind = texts.isBehind
    walk = texts.walk.split(separator: "\n", omittingEmptySubsequences: false)
      .split(whereSeparator: \.isEmpty).map { $0.map { Line($0) } }
    if walk.count > 2 {
      walk[0][0] = Line(walk[0][0].text, .strong)
      walk[2] = Self.highlighted(walk[2])
    }
    let old = Dictionary(counters.map { ($0.name, $0) }) { first, _ in first }
    counters = texts.stats.split(separator: "\n").compactMap { line in
      let words = line.split(separator: " ").map(String.init)
      guard words.count == 2 else { return nil }
      let before = old[words[0]]
      // In the first update, no counter has changed.
      let hasChanged = words[1] != before?.value ?? words[1]
      return Counter(
        name: words[0], value: words[1],
        marks: hasChanged ? lately : max(0, (before?.marks ?? 0) - 1))
    }
    let new = texts.trace.split(separator: "\n").suffix(Self.keptEvents).map(Self.event)
    events = (events + new).suffix(Self.keptEvents)
  }

  /// The lines of the screen, one for each row. On a small screen, the last parts are cut off. On a large screen, the
  /// fields of the entry are shown, too.
  func lines(columns: Int, rows: Int) -> [Line] {
    // The footer takes the last row.
    let room = max(0, rows - 1)
    var head: [Line] = []
    for (index, part) in walk.prefix(3).enumerated() {
      head += (index == 2 ? [Line("")] : []) + part
    }
    let counters = [rule("counters (* has just changed)", columns)] + counterRows(columns)
    let eventsRule = rule(isBehind ? "events (catching up)" : "events", columns)
    if walk.count > 3, room - head.count - counters.count - 1 > Self.fewEvents + walk[3].count {
      head += [Line("")] + walk[3]
    }
    var lines = (head + counters + [eventsRule]).prefix(room)
    lines += events.suffix(room - lines.count)
    lines += Array(repeating: Line(""), count: room - lines.count)
    return (lines + [footer(columns)]).suffix(rows)
  }

  /// The number of events in a read or a write of the node, about.
  private static let fewEvents = 7

  private func footer(_ columns: Int) -> Line {
    let keys = isPaused ? "paused  p continues  q quits" : "p pauses  q quits"
    let left = String(title.prefix(max(0, columns - keys.utf8.count - 2)))
    return Line(left + spaces(columns - left.utf8.count - keys.utf8.count) + keys, .bar)
  }

  private func rule(_ name: String, _ columns: Int) -> Line {
    Line(
      "-- \(name) " + String(repeating: "-", count: max(0, columns - name.utf8.count - 4)), .strong)
  }

  /// The names and values of the counters, in as many columns as fit.
  private func counterRows(_ columns: Int) -> [Line] {
    for count in stride(from: 6, through: 1, by: -1) {
      let height = (counters.count + count - 1) / count
      let groups = stride(from: 0, to: counters.count, by: max(1, height)).map {
        let group = counters[$0..<min($0 + height, counters.count)]
        let width = group.map(\.name.utf8.count).max() ?? 0
        let digits = group.map(\.value.utf8.count).max() ?? 0
        return group.map { counter in
          let gap = spaces(width - counter.name.utf8.count + 1 + digits - counter.value.utf8.count)
          let isMarked = counter.marks > 0
          return Line(
            counter.name + gap + counter.value + (isMarked ? "*" : " "),
            isMarked ? .changed : .plain)
        }
      }
      let width = groups.map { ($0.first?.width ?? 0) + 2 }.reduce(-2, +)
      guard width <= columns || count == 1 else { continue }
      return (0..<height).map { row in
        var line = Line("")
        for group in groups where row < group.count {
          line.spans += (line.width == 0 ? [] : [Line.Span("  ")]) + group[row].spans
        }
        return line
      }
    }
    return []
  }

  /// Marks the hidden byte in the picture of the entry's bits: the byte is above the `=` signs.
  private static func highlighted(_ picture: [Line]) -> [Line] {
    guard let marks = picture.last?.text, picture.count > 1 else { return picture }
    let bits = picture[picture.count - 2].text
    let start = marks.prefix { $0 == " " }.count
    let length = marks.dropFirst(start).prefix { $0 == "=" }.count
    let byte = Line(spans: [
      Line.Span(bits.prefix(start)), Line.Span(bits.dropFirst(start).prefix(length), .byte),
      Line.Span(bits.dropFirst(start + length)),
    ])
    return picture.dropLast(2) + [byte, Line(marks, .strong)]
  }

  /// A line of the trace without the parts that are the same in all lines, so that the fields have room in 80 columns.
  private static func event(_ line: Substring) -> Line {
    // "virt-walkerd-123 [000] ..... 12.345678: name: fields"
    let text = (line.firstRange(of: "] ").map { line[$0.upperBound...].dropFirst(6) } ?? line)
      .replacing(" virt_walker_", with: " ", maxReplacements: 1)
    let style: Line.Style =
      if text.contains(" warning: ") || text.contains("[LOST ") {
        .warning
      } else if text.contains(" hide: ") || text.contains(" seek: ") {
        .access
      } else {
        .plain
      }
    return Line(text, style)
  }
}

/// A line of the screen, in spans of one style each. Each byte takes one column. Any byte except printable ASCII is
/// shown as `?`, so that the content of a file cannot control the terminal.
struct Line: Equatable {
  /// The raw value has the parameters of the SGR sequence. The colours are among the 16 that every terminal has.
  enum Style: String {
    case plain = ""
    case strong = "1"
    case bar = "7"
    case byte = "30;43"
    case warning = "31"
    case changed = "32"
    case access = "36"
  }

  struct Span: Equatable {
    var text: String
    var style: Style

    init(_ text: some StringProtocol, _ style: Style = .plain) {
      self.text = String(
        decoding: text.utf8.map { 0x20...0x7e ~= $0 ? $0 : UInt8(ascii: "?") }, as: UTF8.self)
      self.style = style
    }
  }

  var spans: [Span]

  init(spans: [Span]) { self.spans = spans }
  init(_ text: some StringProtocol, _ style: Style = .plain) { spans = [Span(text, style)] }

  var text: String { spans.map(\.text).joined() }
  var width: Int { spans.map(\.text.utf8.count).reduce(0, +) }

  /// The text for the terminal, cut off after `columns` columns.
  func rendered(columns: Int, colours: Bool) -> String {
    var room = columns
    return spans.map { span in
      let text = span.text.prefix(room)
      room -= text.utf8.count
      return colours && span.style != .plain && !text.isEmpty
        ? "\u{1b}[\(span.style.rawValue)m\(text)\u{1b}[m" : String(text)
    }.joined()
  }
}

private func spaces(_ count: Int) -> String { String(repeating: " ", count: max(0, count)) }

import Inspection
import Scenarios
import Stage2Sim

/// The content of a page: machines with their steps. Each text, each decoded word and each list is there once, so that a step is a few
/// numbers.
///
/// The page's script knows nothing of the architecture: names and meanings of fields come from here.
public struct PageContent: Sendable {
  /// The parts of a word: the names and bits of its fields.
  private struct Layout: Hashable {
    struct Field: Hashable {
      let name: Int
      let bits: ClosedRange<Int>
      let isOfByte: Bool
    }

    let fields: [Field]
  }

  private struct Word: Hashable {
    let layout: Int
    let value: UInt64
    let summary: Int
    let meanings: [Int]
  }

  /// A machine, and the steps that it has performed.
  struct Machine {
    let name: Int
    let description: Int
    let notes: [Int]
    /// Each step: its text, its line, and the numbers of its lists in the order of ``PageStep``.
    var steps: [[Int]] = []
  }

  private var strings = Interner([""])
  private var layouts = Interner<Layout>()
  private var words = Interner<Word>()
  private var walks = Interner<[Int]>()
  private var lists = Interner<[Int]>([[]])
  private(set) var machines: [Machine] = []

  /// A content without machines.
  public init() {}

  /// The number of machines.
  public var machineCount: Int { machines.count }

  /// Adds a machine without steps.
  ///
  /// - Parameters:
  ///   - name: The name that people see, such as that of a file.
  ///   - description: The first line of a scenario.
  ///   - notes: Lines about the machine.
  public mutating func addMachine(name: String, description: String, notes: [String] = []) {
    machines.append(
      Machine(
        name: number(name), description: number(description), notes: notes.map { number($0) }))
  }

  /// Adds a step to the machine that was added last.
  mutating func add(_ step: PageStep) {
    let events = step.events.flatMap { [$0.depth, number($0.word), number($0.text)] }
    let aborts = step.aborts.flatMap { abort in
      [number(abort.syndrome), number(abort.far), number(abort.hpfar)]
    }
    let walks = step.walks.flatMap { [number($0.before), number($0.after)] }
    let writes = step.writes.flatMap { write in
      [number(write.place), number(write.old), number(write.new)]
    }
    let texts = [step.results, step.invalidations, step.warnings, step.guestLog, step.hostLog]
    let parts =
      [events, aborts, walks, writes] + texts.map { list in list.map { number($0) } }
    machines[machines.count - 1].steps.append(
      [number(step.text), step.line] + parts.map { lists.number(of: $0) })
  }

  private mutating func number(_ text: String) -> Int {
    strings.number(of: text.printable)
  }

  private mutating func number(_ word: DecodedWord) -> Int {
    let fields = word.fields.map {
      Layout.Field(name: number($0.name), bits: $0.bits, isOfByte: $0.isOfByte)
    }
    return words.number(
      of: Word(
        layout: layouts.number(of: Layout(fields: fields)), value: word.value,
        summary: number(word.summary), meanings: word.fields.map { number($0.meaning) }))
  }

  /// A walk is a list: the address, and for each entry its level, its table, its index and the entry.
  private mutating func number(_ walk: PageStep.Walk) -> Int {
    walks.number(
      of: [number(walk.address)]
        + walk.entries.flatMap { [$0.level, number($0.table), $0.index, number($0.entry)] })
  }

  /// The numbers of values at a moment.
  struct Size: Hashable {
    var strings = 0
    var layouts = 0
    var words = 0
    var walks = 0
    var lists = 0
    /// The steps of the last machine.
    var steps = 0
  }

  /// The present size.
  var size: Size {
    Size(
      strings: strings.values.count, layouts: layouts.values.count, words: words.values.count,
      walks: walks.values.count, lists: lists.values.count, steps: machines.last?.steps.count ?? 0)
  }

  /// The content as JSON.
  var json: String { json(since: Size()) }

  /// The values since a moment as JSON.
  ///
  /// - Parameter first: The size at that moment; all is 0 for the whole content.
  func json(since first: Size) -> String {
    var json = JSONText()
    json.append("{\"strings\":")
    json.append(Array(strings.values.dropFirst(first.strings)))
    json.append(",\n\"layouts\":")
    json.appendList(layouts.values.dropFirst(first.layouts)) { json, layout in
      json.appendList(layout.fields) { json, field in
        json.append([
          field.name, field.bits.upperBound, field.bits.lowerBound, field.isOfByte ? 1 : 0,
        ])
      }
    }
    json.append(",\n\"words\":")
    json.appendList(words.values.dropFirst(first.words)) { json, word in
      json.append("[\(word.layout),\"\(hexadecimal(word.value, digits: 16))\",\(word.summary),")
      json.append(word.meanings)
      json.append("]")
    }
    json.append(",\n\"walks\":")
    json.appendList(walks.values.dropFirst(first.walks)) { $0.append($1) }
    json.append(",\n\"lists\":")
    json.appendList(lists.values.dropFirst(first.lists)) { $0.append($1) }
    json.append(",\n\"machines\":")
    json.appendList(machines.enumerated()) { json, machine in
      let (index, machine) = machine
      json.append(
        "{\"name\":\(machine.name),\"machine\":\(machine.description),\"notes\":")
      json.append(machine.notes)
      json.append(",\n\"steps\":")
      let isLast = index == machines.count - 1
      json.appendList(machine.steps.dropFirst(isLast ? first.steps : 0)) { $0.append($1) }
      json.append("}")
    }
    json.append("}")
    return json.text
  }
}

import PageTableCases
import Scenarios
import Stage2Sim
import SystemPackage

/// A page-table case that the command line names (oracle/README.md).
struct CaseText {
  private let input: TextInput
  /// The entries that the table begins with; nil for an empty table.
  private let dump: TextInput?
  /// The version of Linux in the place of that of the text.
  private let kernel: KernelVersion?
  /// The machine, with the version of Linux that the command names.
  let machine: TableMachine
  /// The number of operations.
  let operationCount: Int
  private let hasResults: Bool

  /// The name in messages.
  var name: String { input.name }

  /// Reads all of a case, and keeps no line.
  ///
  /// - Parameters:
  ///   - input: The text.
  ///   - dump: The entries that the table begins with; nil for an empty table.
  ///   - kernel: The version of Linux; nil for that of the text.
  ///   - other: Another version that must be able to play the case.
  init(
    _ input: TextInput, _ dump: TextInput?, _ kernel: KernelVersion?, other: KernelVersion?
  ) throws {
    self.input = input
    self.dump = dump
    self.kernel = kernel
    (machine, operationCount, hasResults) = try Self.reading(input, kernel, other) { reader in
      while try reader.next(keepsResults: false) != nil {}
      return (try reader.requireMachine(), reader.operationCount, reader.hasResults)
    }
    // The dump is loaded before any case is played, and again for the player.
    if dump != nil { _ = try player(on: machine) }
  }

  private func player(on machine: TableMachine) throws -> CasePlayer {
    guard let dump else { return CasePlayer(machine) }
    return try dump.withParts { parts in
      do {
        return CasePlayer(try DumpReader.table(of: TextLines(parts: parts), on: machine))
      } catch let error as CaseError {
        throw Failure(
          "\(dump.name):\(error): oracle/README.md says which tables can be loaded (the machine is that of \(name))",
          status: .dataError)
      }
    }
  }

  private static func reading<Result>(
    _ input: TextInput, _ kernel: KernelVersion?, _ other: KernelVersion? = nil,
    _ body: (inout CaseReader) throws -> Result
  ) throws -> Result {
    try input.withParts { parts in
      var reader = CaseReader(TextLines(parts: parts), kernel: kernel, other: other)
      do {
        return try body(&reader)
      } catch let error as CaseError {
        throw Failure(
          "\(input.name):\(error): oracle/README.md describes the cases", status: .dataError)
      }
    }
  }

  /// - Throws: ``Failure`` if the case has no results.
  func requireResults() throws {
    guard hasResults else {
      throw Failure(
        "\(name) has no results to compare: run it without --check", status: .dataError)
    }
  }

  /// Prints each line with the results of the model, and comments and empty lines as they are in the file.
  func play() throws {
    var player = try player(on: machine)
    try Self.reading(input, kernel) { reader in
      var output = ""
      while let line = try reader.next(keepsResults: false) {
        switch line.content {
        case .kernel where kernel != nil: continue
        case .comment, .kernel: output += line.text.printable + "\n"
        case .machine(let machine):
          output +=
            kernel == nil ? "\(line.text.printable)\n" : machine.header.map { $0 + "\n" }.joined()
          try player.start { result in
            output += "  \(result)\n"
            try flush(&output, isLast: false)
          }
        case .operation(let operation):
          output += line.text.printable + "\n"
          for result in try player.perform(operation, line: line.number) {
            output += "  \(result)\n"
          }
        }
        try flush(&output, isLast: false)
      }
      try flush(&output, isLast: true)
    }
  }

  /// Prints text, if there is enough of it or no more comes. Its lines were made printable one by one, which takes less time than for
  /// all of it.
  private func flush(_ output: inout String, isLast: Bool) throws {
    guard isLast || output.utf8.count >= 1 << 16 else { return }
    _ = try FileDescriptor.standardOutput.writeAll(output.utf8)
    output = ""
  }

  /// The first difference from the model, as text to print; nil if there is none.
  func difference(width: Int?) throws -> String? {
    var player = try player(on: machine)
    return try Self.reading(input, kernel) { reader in
      while let line = try reader.next() {
        guard line.results != [CaseReader.lostResult] else { return nil }
        guard let results = try player.results(of: line),
          let difference = ResultDifference(line.results, results)
        else { continue }
        // The first result that differs, or the last line of the operation if results are missing in the file.
        let number = line.number + min(difference.index + 1, line.results.count)
        return title(line, number: number, operation: reader.operationCount)
          + difference.text(width: width)
      }
      return nil
    }
  }

  /// Prints each operation that another version of Linux performs otherwise, and returns their number.
  func differences(from other: KernelVersion, width: Int?) throws -> Int {
    var otherMachine = machine
    otherMachine.kernel = other
    var players = (left: try player(on: machine), right: try player(on: otherMachine))
    let titles = (left: "Linux \(machine.kernel.rawValue)", right: "Linux \(other.rawValue)")
    return try Self.reading(input, kernel) { reader in
      var different = 0
      while let line = try reader.next(keepsResults: false) {
        guard let left = try players.left.results(of: line),
          let right = try players.right.results(of: line),
          let difference = ResultDifference(left, right)
        else { continue }
        different += 1
        try write(
          title(line, number: line.number, operation: reader.operationCount)
            + difference.text(width: width, titles: titles))
      }
      return different
    }
  }

  private func title(_ line: CaseReader.Line, number: Int, operation: Int) -> String {
    let place = operation == 0 ? "at first" : "operation \(operation)"
    return "\(name):\(number): \(place): \(line.text)\n"
  }
}

extension CasePlayer {
  /// The results of a line; nil if the line has none.
  fileprivate mutating func results(of line: CaseReader.Line) throws(CaseError) -> [String]? {
    switch line.content {
    case .comment, .kernel: return nil
    case .machine:
      var results: [String] = []
      start { results.append($0) }
      return results
    case .operation(let operation): return try perform(operation, line: line.number)
    }
  }
}

/// The results of an operation on two sides that differ. An operation can have a result for each entry of a table, so only those around
/// the first difference are shown.
private struct ResultDifference {
  /// The first result that differs.
  let index: Int
  private let left: [String]
  private let right: [String]

  /// The number of results that stand before the difference, and the most that stand from there on.
  private static let (before, after) = (3, 12)

  /// Makes nil if both sides are equal.
  init?(_ left: [String], _ right: [String]) {
    guard left != right else { return nil }
    index =
      zip(left, right).enumerated().first { $1.0 != $1.1 }?.offset ?? min(left.count, right.count)
    let (start, end) = (max(0, index - Self.before), index + Self.after)
    func excerpt(_ side: [String]) -> [String] {
      (start > 0 ? ["..."] : []) + side[min(start, side.count)..<min(end, side.count)]
        + (side.count > end ? ["..."] : [])
    }
    self.left = excerpt(left)
    self.right = excerpt(right)
  }

  func text(
    width: Int?, titles: (left: String, right: String) = ("kernel", "model")
  ) -> String {
    SideBySide(kernel: left, model: right).lines(width: width, titles: titles)
      .map { $0 + "\n" }.joined()
  }
}

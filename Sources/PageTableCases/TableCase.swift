import Stage2Sim

/// A machine, and operations on its table.
///
/// The text of a case has a line for the version of the kernel, which cases of 6.1 may leave out, one for the machine, and one
/// for each operation. A record of a case is the same text with
/// the results of each operation below its line, on lines that begin with two spaces. Lines that begin with `#`
/// are comments. ``CaseReader`` reads a text without keeping it.
package struct TableCase: Equatable, Sendable {
  package var machine: TableMachine
  package var operations: [TableOperation]

  package init(machine: TableMachine, operations: [TableOperation]) {
    self.machine = machine
    self.operations = operations
  }

  /// Reads a case, with or without results.
  package init(_ text: String) throws {
    var reader = CaseReader(TextLines(Array(text.utf8)))
    operations = []
    while let line = try reader.next(keepsResults: false) {
      if case .operation(let operation) = line.content { operations.append(operation) }
    }
    machine = try reader.requireMachine()
  }

  /// The record of the model, as lines.
  package var played: [String] {
    var player = CasePlayer(machine)
    var lines = machine.header
    player.start { lines.append("  \($0)") }
    for operation in operations {
      lines.append("\(operation)")
      lines += player.run(operation).map { "  \($0)" }
    }
    return lines
  }
}

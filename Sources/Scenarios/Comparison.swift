/// The first step of which an engine has other observations than the recorded kernel.
public struct Difference: Hashable, Sendable {
  /// The number of the step, from 1.
  public let step: Int
  /// The step's line in the recording.
  public let line: Int
  /// The step as the recording has it.
  public let text: String
  /// The observations of the real kernel.
  public let kernel: [String]
  /// The observations of the engine, which is the model.
  public let model: [String]

  /// Both sides as lines to print: the kernel's on the left and the model's on the right, with a `!` between lines that differ.
  /// If that is wider than `width`, the two sides of a line stand one above the other.
  public func sideBySide(width: Int? = nil) -> [String] {
    let rows = (0..<max(kernel.count, model.count)).map { index in
      (
        kernel: index < kernel.count ? kernel[index] : nil,
        model: index < model.count ? model[index] : nil
      )
    }
    let titles = (kernel: "kernel" as String?, model: "model" as String?)
    let columns = [titles] + rows
    let left = columns.compactMap(\.kernel?.count).max() ?? 0
    let right = columns.compactMap(\.model?.count).max() ?? 0
    // Each line begins with two spaces, and has three between the columns.
    guard left + right + 5 <= width ?? .max else { return stacked(rows) }
    return columns.enumerated().map { index, row in
      let kernel = row.kernel ?? ""
      let padding = String(repeating: " ", count: left - kernel.count)
      let mark = index == 0 || row.kernel == row.model ? " " : "!"
      return "  \(kernel)\(padding) \(mark)" + (row.model.map { " \($0)" } ?? "")
    }
  }

  private func stacked(_ rows: [(kernel: String?, model: String?)]) -> [String] {
    rows.flatMap { row -> [String] in
      if let both = row.kernel, both == row.model { return ["  \(both)"] }
      return [row.kernel.map { "! kernel: \($0)" }, row.model.map { "! model:  \($0)" }]
        .compactMap { $0 }
    }
  }
}

extension Recording {
  /// Performs the steps of the recording up to the first step with other observations.
  ///
  /// - Parameter engine: An engine whose machine is ``machine``, as it was made.
  /// - Returns: That step; nil if all observations are the same.
  public func firstDifference(on engine: any Engine) throws(EngineFailure) -> Difference? {
    for (index, (line, step)) in steps.enumerated() {
      if let difference = try engine.difference(performing: step, number: index + 1, of: line) {
        return difference
      }
    }
    return nil
  }

  /// The recording of the same scenario on an engine.
  ///
  /// - Parameter engine: An engine whose machine is ``machine``, as it was made.
  public func played(on engine: any Engine) throws(EngineFailure) -> Recording {
    var played: [Line] = []
    var number = 1
    for old in lines {
      var line = Line(number: number, line: old.line)
      if case .step(let step) = old.line.content {
        line.observations = try engine.perform(step).map(\.description)
      }
      number += 1 + line.observations.count
      played.append(line)
    }
    return Recording(machine: machine, lines: played)
  }
}

extension Engine {
  /// Performs a step, and compares its observations with those of `line`.
  ///
  /// - Parameter number: The number of the step, from 1.
  /// - Returns: Nil if both are the same.
  package func difference(
    performing step: Step, number: Int, of line: Recording.Line
  ) throws(EngineFailure) -> Difference? {
    let seen = try perform(step).map(\.description)
    guard seen != line.observations else { return nil }
    return Difference(
      step: number, line: line.number, text: line.line.text, kernel: line.observations, model: seen)
  }
}

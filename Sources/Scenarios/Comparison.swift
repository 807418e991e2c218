/// Where the model first does something else than the kernel did.
public struct Difference: Hashable, Sendable {
  /// The step, counted from 1.
  public let step: Int
  /// The step's line in the recording.
  public let line: Int
  /// The step as the recording has it.
  public let text: String
  /// What was seen on the real kernel.
  public let kernel: [String]
  /// What is seen on the model.
  public let model: [String]

  /// Both sides, as lines to print: the kernel's left and the model's right, a `!` between them where they differ; one
  /// above the other where that is wider than `width`.
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
    // Two spaces in front, three between.
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
  /// Plays the recording on the model, up to the first step of which something else is seen.
  ///
  /// - Returns: That step; nil where all is the same.
  public func firstDifference() throws(UnplayableMachine) -> Difference? {
    var player = try Player(machine)
    for (index, (line, step)) in steps.enumerated() {
      if let difference = player.difference(playing: step, number: index + 1, of: line) {
        return difference
      }
    }
    return nil
  }

  /// The recording of the same scenario on the model.
  public func played() throws(UnplayableMachine) -> Recording {
    var played: [Line] = []
    for line in try Playback(of: self) { played.append(line) }
    return Recording(machine: machine, lines: played)
  }

  /// The lines of ``played()``, one after the other: all together they may be much longer than the scenario.
  public struct Playback: Sequence, IteratorProtocol {
    private var player: Player
    private var rest: ArraySlice<Line>
    private var number = 1

    /// - Throws: Where there is no such machine.
    public init(of recording: Recording) throws(UnplayableMachine) {
      player = try Player(recording.machine)
      rest = recording.lines[...]
    }

    public mutating func next() -> Line? {
      guard let old = rest.popFirst() else { return nil }
      var line = Line(number: number, line: old.line)
      if case .step(let step) = old.line.content { line.observations = player.play(step) }
      number += 1 + line.observations.count
      return line
    }
  }
}

extension Player {
  /// Does a step, and compares what is seen with what `line` has seen.
  ///
  /// - Parameter number: The step's, counted from 1.
  /// - Returns: Nil where both are the same.
  package mutating func difference(
    playing step: Step, number: Int, of line: Recording.Line
  ) -> Difference? {
    let seen = play(step)
    guard seen != line.observations else { return nil }
    return Difference(
      step: number, line: line.number, text: line.line.text, kernel: line.observations, model: seen)
  }
}

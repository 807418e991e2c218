/// Lines of the real kernel beside lines of the model, or lines of two models beside each other.
public struct SideBySide {
  private typealias Row = (kernel: String?, model: String?)

  private var rows: [Row]

  /// Lines of which those with the same number stand beside each other.
  public init(kernel: [String], model: [String]) {
    rows = (0..<max(kernel.count, model.count)).map { index in
      (
        kernel: index < kernel.count ? kernel[index] : nil,
        model: index < model.count ? model[index] : nil
      )
    }
  }

  /// Lines of which equal ones stand beside each other, as diff(1) has them. Long parts without a difference are left out.
  ///
  /// - Returns: Nil if there is no difference.
  public init?(differencesOfKernel kernel: [String], fromModel model: [String]) {
    var removed: Set<Int> = []
    var inserted: Set<Int> = []
    for change in kernel.difference(from: model) {
      switch change {
      case .remove(let offset, _, _): removed.insert(offset)
      case .insert(let offset, _, _): inserted.insert(offset)
      }
    }
    guard !removed.isEmpty || !inserted.isEmpty else { return nil }
    var all: [Row] = []
    var (left, right) = (0, 0)
    while left < kernel.count || right < model.count {
      let isNew = left < kernel.count && inserted.contains(left)
      let isGone = right < model.count && removed.contains(right)
      let isBoth = !isNew && !isGone
      all.append(
        (
          kernel: isNew || isBoth ? kernel[left] : nil,
          model: isGone || isBoth ? model[right] : nil
        ))
      if isNew || isBoth { left += 1 }
      if isGone || isBoth { right += 1 }
    }
    rows = Self.withoutLongParts(all)
  }

  /// The number of equal lines that stand before and after a difference.
  private static let context = 2

  private static func withoutLongParts(_ rows: [Row]) -> [Row] {
    let different = rows.indices.filter { rows[$0].kernel != rows[$0].model }
    var shown: Set<Int> = []
    for index in different {
      shown.formUnion(max(0, index - context)...min(rows.count - 1, index + context))
    }
    var kept: [Row] = []
    for index in rows.indices {
      if shown.contains(index) {
        kept.append(rows[index])
      } else if index == 0 || shown.contains(index - 1) {
        kept.append(("...", "..."))
      }
    }
    return kept
  }

  /// Both sides as lines to print: the kernel's on the left and the model's on the right, with a `!` between lines that differ.
  /// If that is wider than `width`, the two sides of a line stand one above the other.
  ///
  /// - Parameters:
  ///   - width: The number of columns; nil if lines can have any length.
  ///   - titles: The names of the left and of the right side.
  public func lines(
    width: Int? = nil, titles: (left: String, right: String) = ("kernel", "model")
  ) -> [String] {
    let columns = [(kernel: titles.left, model: titles.right)] + rows
    let left = columns.compactMap(\.kernel?.count).max() ?? 0
    let right = columns.compactMap(\.model?.count).max() ?? 0
    // Each line begins with two spaces, and has three between the columns.
    guard left + right + 5 <= width ?? .max else { return stacked(titles) }
    return columns.enumerated().map { index, row in
      let kernel = row.kernel ?? ""
      let padding = String(repeating: " ", count: left - kernel.count)
      let mark = index == 0 || row.kernel == row.model ? " " : "!"
      return "  \(kernel)\(padding) \(mark)" + (row.model.map { " \($0)" } ?? "")
    }
  }

  private func stacked(_ titles: (left: String, right: String)) -> [String] {
    let width = max(titles.left.count, titles.right.count)
    func line(_ title: String, _ text: String) -> String {
      "! \(title):\(String(repeating: " ", count: width - title.count)) \(text)"
    }
    return rows.flatMap { row -> [String] in
      if let both = row.kernel, both == row.model { return ["  \(both)"] }
      return [row.kernel.map { line(titles.left, $0) }, row.model.map { line(titles.right, $0) }]
        .compactMap { $0 }
    }
  }
}

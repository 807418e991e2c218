/// The files that a `git diff` changes.
package struct PatchFile {
  package struct File: Equatable {
    /// The path before the change; nil for a new file.
    package var old: String?
    /// The path after the change; nil for a file that is removed.
    package var new: String?
  }

  /// A line that a diff adds.
  struct Addition: Equatable {
    /// The number of the line in the new file.
    var number: Int
    var text: String
  }

  let name: String
  package private(set) var files: [File] = []
  /// The added lines of each file, and the number of lines that are removed.
  private(set) var changes: [(added: [Addition], removed: Int)] = []

  /// The C files of the kernel that can run on the model.
  static let compiled = [
    "arch/arm64/kvm/mmio.c", "arch/arm64/kvm/hyp/pgtable.c", "arch/arm64/kvm/hypercalls.c",
  ]

  /// Reads the names of the files.
  ///
  /// - Throws: ``CodeFailure`` for a text that is no diff, or that has names outside of the tree.
  package init(parsing bytes: [UInt8], name: String) throws(CodeFailure) {
    self.name = name
    var old: String?
    // The lines of a hunk that are left: a removed line can look like the name of a file.
    var (left, right) = (0, 0)
    var number = 0
    for line in bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false) {
      let text = String(decoding: line, as: UTF8.self)
      if left > 0 || right > 0 {
        switch text.utf8.first {
        case UInt8(ascii: "-"):
          left -= 1
          if !changes.isEmpty { changes[changes.count - 1].removed += 1 }
        case UInt8(ascii: "+"):
          right -= 1
          if !changes.isEmpty {
            changes[changes.count - 1].added.append(
              Addition(number: number, text: String(text.dropFirst())))
          }
          number += 1
        case UInt8(ascii: "\\"): break
        default:
          left -= 1
          right -= 1
          number += 1
        }
      } else if text.hasPrefix("--- ") {
        old = try Self.path(text.dropFirst(4), name)
      } else if text.hasPrefix("+++ ") {
        files.append(File(old: old, new: try Self.path(text.dropFirst(4), name)))
        changes.append(([], 0))
      } else if text.hasPrefix("@@ ") {
        (number, left, right) = Self.counts(text) ?? (0, 0, 0)
      } else if text.hasPrefix("GIT binary patch") || text.hasPrefix("Binary files ") {
        throw CodeFailure("\(name) changes a binary file: give a diff of C files")
      }
    }
    guard !files.isEmpty else {
      throw CodeFailure(
        "\(name) is not a diff: it has no lines with --- and +++: make it by git diff in the kernel's tree"
      )
    }
  }

  /// - Throws: ``CodeFailure`` with all files of the diff that the model does not run.
  func requireSupport() throws(CodeFailure) {
    let others = files.compactMap { $0.new ?? $0.old }.filter { path in
      !Self.compiled.contains(path) && !(path.hasSuffix(".h") && Self.isOfKernel(path))
    }
    guard others.isEmpty else {
      throw CodeFailure(
        "\(name) changes files that virt-walker's model does not run: \(others.joined(separator: ", ")): it runs \(Self.compiled.joined(separator: ", ")) and headers; a real kernel runs the others"
      )
    }
  }

  private static func isOfKernel(_ path: String) -> Bool {
    ["arch/arm64/", "include/", "virt/"].contains { path.hasPrefix($0) }
  }

  /// The path in a line of `---` or `+++`, without its first part; nil for /dev/null.
  private static func path(_ text: Substring, _ name: String) throws(CodeFailure) -> String? {
    let path = text.prefix { $0 != "\t" && $0 != "\r" }
    if path == "/dev/null" { return nil }
    let parts = path.split(separator: "/", omittingEmptySubsequences: false)
    let isInside = parts.dropFirst().allSatisfy { !$0.isEmpty && $0 != "." && $0 != ".." }
    guard parts.count > 1, isInside, !path.hasPrefix("/"), !path.hasPrefix("\"") else {
      throw CodeFailure(
        "\(name) has a file with the name '\(path)': names begin with a/ and b/, as git diff writes them"
      )
    }
    return parts.dropFirst().joined(separator: "/")
  }

  /// The first new line, and the numbers of old and new lines, of a hunk: `@@ -1,7 +1,9 @@`.
  private static func counts(_ line: String) -> (Int, Int, Int)? {
    let words = line.split(separator: " ")
    guard words.count >= 3 else { return nil }
    func numbers(_ word: Substring) -> [Int]? {
      let numbers = word.dropFirst().split(separator: ",").map { Int($0) }
      guard (1...2).contains(numbers.count) else { return nil }
      return numbers.contains(nil) ? nil : numbers.compactMap(\.self)
    }
    guard let old = numbers(words[1]), let new = numbers(words[2]) else { return nil }
    return (new[0], old.count == 2 ? old[1] : 1, new.count == 2 ? new[1] : 1)
  }

  // MARK: - Headers

  /// The directory of the headers that a diff changes, in the directory of the code.
  static let headerDirectory = "changed-headers"

  private static let includeDirectories = [
    "arch/arm64/include/uapi/", "arch/arm64/include/", "include/uapi/", "include/",
  ]

  /// The headers that a diff changes, for `#include <...>`: our header of that name, and the lines that the diff adds to the kernel's one.
  /// The kernel's whole header does not fit to ours.
  var headers: (files: [SourceSnapshot.File], notes: [String]) {
    var found: [SourceSnapshot.File] = []
    var notes: [String] = []
    for (file, change) in zip(files, changes) {
      guard let path = file.new, path.hasSuffix(".h"),
        let directory = Self.includeDirectories.first(where: { path.hasPrefix($0) })
      else { continue }
      let included = path.dropFirst(directory.count)
      var text = file.old == nil ? "" : "#include_next <\(included)>\n"
      var next: Int?
      for line in change.added {
        if line.number != next { text += "#line \(line.number) \"\(path)\"\n" }
        text += line.text + "\n"
        next = line.number + 1
      }
      if file.old != nil, change.removed > 0 {
        notes.append(
          "\(name) removes \(change.removed) lines of \(path): the model has a header of its own, and takes only the added lines"
        )
      }
      found.append(.init(name: "\(Self.headerDirectory)/\(included)", bytes: Array(text.utf8)))
    }
    return (found, notes)
  }
}

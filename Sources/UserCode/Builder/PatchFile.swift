/// The files that a `git diff` changes.
struct PatchFile {
  struct File: Equatable {
    /// The path before the change; nil for a new file.
    var old: String?
    /// The path after the change; nil for a file that is removed.
    var new: String?
  }

  let name: String
  private(set) var files: [File] = []

  /// The C files of the kernel that can run on the model.
  static let compiled = [
    "arch/arm64/kvm/mmio.c", "arch/arm64/kvm/hyp/pgtable.c", "arch/arm64/kvm/hypercalls.c",
  ]

  /// Reads the names of the files.
  ///
  /// - Throws: ``CodeFailure`` for a text that is no diff, or that has names outside of the tree.
  init(parsing bytes: [UInt8], name: String) throws(CodeFailure) {
    self.name = name
    var old: String?
    // The lines of a hunk that are left: a removed line can look like the name of a file.
    var (left, right) = (0, 0)
    for line in bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false) {
      let text = String(decoding: line, as: UTF8.self)
      if left > 0 || right > 0 {
        switch text.utf8.first {
        case UInt8(ascii: "-"): left -= 1
        case UInt8(ascii: "+"): right -= 1
        case UInt8(ascii: "\\"): break
        default:
          left -= 1
          right -= 1
        }
      } else if text.hasPrefix("--- ") {
        old = try Self.path(text.dropFirst(4), name)
      } else if text.hasPrefix("+++ ") {
        files.append(File(old: old, new: try Self.path(text.dropFirst(4), name)))
      } else if text.hasPrefix("@@ ") {
        (left, right) = Self.counts(text) ?? (0, 0)
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

  /// The numbers of old and new lines of a hunk: `@@ -1,7 +1,9 @@`.
  private static func counts(_ line: String) -> (Int, Int)? {
    let words = line.split(separator: " ")
    guard words.count >= 3 else { return nil }
    func count(_ word: Substring) -> Int? {
      let parts = word.dropFirst().split(separator: ",")
      return parts.count == 2 ? Int(parts[1]) : parts.count == 1 ? 1 : nil
    }
    guard let old = count(words[1]), let new = count(words[2]), old >= 0, new >= 0 else {
      return nil
    }
    return (old, new)
  }
}

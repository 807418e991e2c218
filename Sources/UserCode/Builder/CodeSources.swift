import CharacterDeviceServer

/// The user's code as the command line names it.
public struct CodeSources: Hashable, Sendable {
  /// A C file, or a directory with the C files of one module.
  public var module: String?
  /// A C file with a hook: a whole mmio.c, or the hook alone.
  public var hook: String?
  /// The function of the hook; nil for the usual names.
  public var hookFunction: String?
  /// A `git diff` of a kernel tree, which contains the hook.
  public var patch: String?
  /// The directory of that tree. Without a diff, it can be the number of a version.
  public var linux: String?
  /// Whether the code is compiled with AddressSanitizer and UndefinedBehaviorSanitizer.
  public var isSanitized = false
  /// Whether the code is compiled anew when a file has changed.
  public var isWatched = false

  public init() {}

  /// Whether there is any code.
  public var isEmpty: Bool { module == nil && hook == nil && patch == nil }

  /// A text for people: the kinds of code, their files, and the function of the hook.
  public var longDescription: String {
    description + (hookFunction.map { " (\($0))" } ?? "")
  }

  /// A text for people: the kinds of code and their files.
  public var description: String {
    var parts: [String] = []
    if let module { parts.append("module \(module)") }
    if let hook { parts.append("hook \(hook)") }
    if let patch { parts.append("hook of \(patch)") }
    return parts.joined(separator: ", ")
  }

  /// The fields of a message.
  var fields: [String] {
    func field(_ text: String?) -> String { text.map { "=\($0)" } ?? "" }
    return [
      field(module), field(hook), field(hookFunction), field(patch), field(linux),
      isSanitized ? "1" : "0", isWatched ? "1" : "0",
    ]
  }

  init?(fields: some Collection<String>) {
    let fields = Array(fields)
    guard fields.count == 7 else { return nil }
    func text(_ index: Int) -> String? {
      fields[index].hasPrefix("=") ? String(fields[index].dropFirst()) : nil
    }
    (module, hook, hookFunction, patch, linux) = (text(0), text(1), text(2), text(3), text(4))
    isSanitized = fields[5] == "1"
    isWatched = fields[6] == "1"
  }
}

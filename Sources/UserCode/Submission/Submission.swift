import CharacterDeviceServer
import Glibc
import SystemPackage

/// The module and the hook of a submission, found by its manifest or by the content of its files.
public struct Submission {
  /// The code. The paths are those in the submission.
  public private(set) var sources = CodeSources()
  private let files: [SourceSnapshot.File]

  /// Finds the code in the files.
  ///
  /// - Parameters:
  ///   - files: The files.
  ///   - linux: The version of the kernel, or the directory of its tree; nil for the usual version.
  ///   - isForAnyKernel: Whether a diff can be applied to a version. Otherwise it needs the directory of a tree.
  public init(
    _ files: SubmissionFiles, linux: String?, isForAnyKernel: Bool = false
  ) throws(CodeFailure) {
    self.files = files.files
    if let manifest = files.files.first(where: { $0.name == SubmissionFiles.manifest }) {
      try read(String(decoding: manifest.bytes, as: UTF8.self))
    } else {
      try find()
    }
    if let linux { sources.linux = linux }
    guard !sources.isEmpty else {
      throw CodeFailure(
        "the submission has no module (a C file with module_init), no hook (a C file with io_mem_abort or struct kvm_vcpu) and no diff: name its files in \(SubmissionFiles.manifest)"
      )
    }
    if !isForAnyKernel, sources.patch != nil, linux.map(SourceReader.isNumber) ?? true {
      throw CodeFailure(
        "the submission has a diff: grade it with --linux DIRECTORY, the tree of the diff")
    }
    if let hook = sources.hook, sources.hookFunction == nil { try findFunction(in: hook) }
  }

  /// The files. A name is the path in the submission.
  public var contents: [(name: String, bytes: [UInt8])] { files.map { ($0.name, $0.bytes) } }

  /// Checks that the submission has these parts.
  public func require(_ parts: Set<CodeKind>) throws(CodeFailure) {
    if parts.contains(.module), sources.module == nil {
      throw CodeFailure("the submission has no module: a C file with module_init")
    }
    if parts.contains(.hook), sources.hook == nil, sources.patch == nil {
      throw CodeFailure("the submission has no hook: a C file with io_mem_abort, or a diff")
    }
  }

  // MARK: - The manifest

  private mutating func read(_ manifest: String) throws(CodeFailure) {
    func failure(_ line: Int, _ text: String) -> CodeFailure {
      CodeFailure(
        "\(SubmissionFiles.manifest):\(line): \(text): the lines are module: FILE, hook: FILE, hook-function: NAME, patch: FILE and linux: VERSION"
      )
    }
    for (index, line) in manifest.split(separator: "\n", omittingEmptySubsequences: false)
      .enumerated()
    {
      let line = line.filter { $0 != "\r" }
      guard line.contains(where: { $0 != " " }), !line.hasPrefix("#") else { continue }
      guard let colon = line.firstIndex(of: ":") else { throw failure(index + 1, "no colon") }
      var value = line[line.index(after: colon)...]
      while value.first == " " { value.removeFirst() }
      while value.last == " " { value.removeLast() }
      let text = String(value)
      let key = line[..<colon]
      if key == "hook-function" {
        guard !text.isEmpty, text.utf8.allSatisfy({ Self.isNameByte($0) }) else {
          throw failure(index + 1, "'\(text)' is not the name of a function")
        }
        sources.hookFunction = text
        continue
      }
      if key == "linux" {
        guard SourceReader.isNumber(text) else {
          throw failure(index + 1, "'\(text)' is not a version such as 6.2")
        }
        sources.linux = text
        continue
      }
      let isDirectory = key == "module" && (text == "." || has(directory: text))
      guard files.contains(where: { $0.name == text }) || isDirectory else {
        throw failure(index + 1, "the submission has no file '\(text)'")
      }
      switch key {
      case "module": sources.module = text
      case "hook": sources.hook = text
      case "patch": sources.patch = text
      default: throw failure(index + 1, "'\(key)' is not known")
      }
    }
    if sources.hook != nil && sources.patch != nil {
      throw CodeFailure("\(SubmissionFiles.manifest) names a hook and a patch: name one of them")
    }
  }

  private func has(directory: String) -> Bool {
    files.contains { $0.name.hasPrefix(directory.hasSuffix("/") ? directory : "\(directory)/") }
  }

  private static func isNameByte(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
      UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"):
      true
    default: false
    }
  }

  // MARK: - The content

  private mutating func find() throws(CodeFailure) {
    var modules: [String] = []
    var hooks: [String] = []
    var others: [String] = []
    let patches = files.map(\.name).filter { $0.hasSuffix(".patch") || $0.hasSuffix(".diff") }
    for file in files where file.name.hasSuffix(".c") && !SourceReader.isProgram(file.bytes) {
      let text = String(decoding: file.bytes, as: UTF8.self)
      if ["module_init(", "module_init (", "init_module(", "module_misc_device("].contains(where: {
        text.contains($0)
      }) {
        modules.append(file.name)
      } else if ["io_mem_abort", "kvm_vcpu", "kvm_hvc_call_handler"].contains(where: {
        text.contains($0)
      }) {
        hooks.append(file.name)
      } else {
        others.append(file.name)
      }
    }
    func one(_ kind: String, _ names: [String]) throws(CodeFailure) -> String? {
      guard names.count > 1 else { return names.first }
      throw CodeFailure(
        "the submission has \(names.count) files that can be the \(kind): \(names.prefix(8).joined(separator: ", ")): name one in \(SubmissionFiles.manifest)"
      )
    }
    sources.module = try one("module", modules)
    sources.patch = try one("diff", patches)
    // A whole mmio.c beside a diff is the file of the same work.
    if sources.patch == nil { sources.hook = try one("hook", hooks) }
    guard let module = sources.module else { return }
    // A module of more than one C file is a directory of its own.
    let directory = Self.directory(of: module)
    guard others.contains(where: { Self.directory(of: $0) == directory }) else { return }
    guard !hooks.contains(where: { Self.directory(of: $0) == directory }) else {
      throw CodeFailure(
        "the module has more than one C file in the directory of the hook: put the module into a directory of its own, and name both in \(SubmissionFiles.manifest)"
      )
    }
    sources.module = directory.isEmpty ? "." : directory
  }

  private static func directory(of name: String) -> String {
    FilePath(name).removingLastComponent().string
  }

  /// Finds the function of a hook that has no io_mem_abort: the one function that gets a vCPU and an address, otherwise the one function
  /// that gets a vCPU and is not static.
  private mutating func findFunction(in name: String) throws(CodeFailure) {
    guard let file = files.first(where: { $0.name == name }) else { return }
    var functions: [String] = []
    var withAddress: [String] = []
    for line in String(decoding: file.bytes, as: UTF8.self).split(separator: "\n") {
      guard let start = line.firstRange(of: "(struct kvm_vcpu *"),
        let first = line.utf8.first, Self.isNameByte(first), !line.hasSuffix(";")
      else { continue }
      let words = line[..<start.lowerBound].split { $0 == " " || $0 == "*" || $0 == "\t" }
      guard words.count > 1, let name = words.last.map(String.init) else { continue }
      if line.contains("phys_addr_t") { withAddress.append(name) }
      if !line.hasPrefix("static") { functions.append(name) }
    }
    if withAddress.count == 1 { functions = withAddress }
    let usual = ["io_mem_abort", "kvm_hvc_call_handler"]
    if functions.contains(where: { usual.contains($0) }) { return }
    guard functions.count == 1 else {
      throw CodeFailure(
        functions.isEmpty
          ? "\(name) has no io_mem_abort and no other function that gets a struct kvm_vcpu and is not static: write hook-function: NAME into \(SubmissionFiles.manifest)"
          : "\(name) has \(functions.count) functions that can be the hook: \(functions.prefix(8).joined(separator: ", ")): write hook-function: NAME into \(SubmissionFiles.manifest)"
      )
    }
    sources.hookFunction = functions[0]
  }

  // MARK: - The compilation

  /// Checks that this machine can compile code, so that a submission does not lose points because it cannot.
  public static func checkTools() throws(CodeFailure) {
    _ = try SupportFiles.Place.find()
    _ = try Toolchain.findCompiler()
  }

  /// Compiles the code. The directory with its files is gone afterwards.
  public func build(isSanitized: Bool) throws(CodeFailure) -> CodeBuilderClient {
    let directory = try BuildDirectory(
      in: BuilderConfiguration.temporaryDirectories, endsWithProcess: true)
    defer { directory.remove() }
    try directory.write(files, to: "submission")
    var sources = sources
    sources.isSanitized = isSanitized
    // The builder takes the names as those of its working directory, so that messages have the names of the submission.
    guard chdir("\(directory.path)/submission") == 0 else {
      throw CodeFailure("cannot use \(directory.path): \(Errno.current)")
    }
    defer { chdir("/") }
    return try CodeBuilderClient(sources, user: nil)
  }
}

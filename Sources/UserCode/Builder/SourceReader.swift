import CharacterDeviceServer
import Glibc
import SystemPackage

/// The reader of a user's files. It takes only C files and headers, in bounds, and follows no link that another user has made.
package struct SourceReader {
  let sources: CodeSources
  /// The directory of relative paths.
  let workingDirectory: String

  private static let largestFile = 1 << 20
  private static let mostFiles = 256
  private static let largestCode = 8 << 20
  private static let deepestDirectory = 4

  func read() -> Result<SourceSnapshot, CodeFailure> {
    do throws(CodeFailure) {
      var snapshot = SourceSnapshot()
      if let module = sources.module { snapshot.codes[.module] = try readModule(module) }
      if let hook = sources.hook { snapshot.codes[.hook] = try readFile(hook, .hook) }
      if let patch = sources.patch { snapshot.codes[.hook] = try readPatched(patch) }
      if let linux = sources.linux {
        snapshot.kernelVersion =
          sources.patch == nil && Self.isNumber(linux)
          ? try Self.kernelVersion(linux) : try kernelVersion(of: kernelTree(linux))
      }
      return .success(snapshot)
    } catch {
      return .failure(error)
    }
  }

  // MARK: - Modules and hooks

  private func readModule(_ given: String) throws(CodeFailure) -> SourceSnapshot.Code {
    let entry = try find(given, "module")
    guard let attributes = try? entry.attributes, attributes.st_mode & S_IFMT == S_IFDIR else {
      return try readFile(given, .module)
    }
    var code = SourceSnapshot.Code()
    code.givenDirectory = given.hasSuffix("/") ? given : "\(given)/"
    code.absoluteDirectory = absolute(code.givenDirectory)
    let directory: OwnedDescriptor
    do throws(Errno) {
      directory = try entry.open(O_RDONLY | O_DIRECTORY)
    } catch {
      throw unreadable(given, "module", error)
    }
    try readDirectory(directory, "", depth: 0, into: &code)
    guard !code.sources.isEmpty else {
      throw CodeFailure(
        "\(given) has no C file of a module: give a C file, or the directory with the C files of one module"
      )
    }
    return code
  }

  /// A C file, and the headers beside it.
  private func readFile(_ given: String, _ kind: CodeKind) throws(CodeFailure)
    -> SourceSnapshot.Code
  {
    let option = kind.rawValue
    let entry = try find(given, option)
    guard given.hasSuffix(".c") else {
      throw CodeFailure(
        "\(given) is not a C file: the name of a \(option)'s file ends in .c\(kind == .module ? ", or --module names a directory" : "")"
      )
    }
    var code = SourceSnapshot.Code()
    let name = FilePath(given).lastComponent?.string ?? given
    code.givenDirectory = String(given.dropLast(name.utf8.count))
    code.absoluteDirectory = absolute(code.givenDirectory)
    guard let bytes = try content(of: entry, given) else {
      throw CodeFailure("\(given) is not a regular file: give --\(option) a C file")
    }
    code.files = [.init(name: name, bytes: bytes)]
    code.sources = [name]
    if let directory = try? DirectoryEntry(".", in: entry.directory).open(O_RDONLY | O_DIRECTORY) {
      for name in names(in: directory) where name.hasSuffix(".h") {
        // The real file defines KVM's tracepoints, which are nothing here.
        if kind == .hook, name.hasPrefix("trace") { continue }
        let header = DirectoryEntry(name, in: directory)
        // A directory such as /tmp can have headers of anybody: a file that cannot be taken is left out.
        if let bytes = (try? content(of: header, name)) ?? nil {
          try add(.init(name: name, bytes: bytes), to: &code)
        }
      }
    }
    return code
  }

  private func readDirectory(
    _ directory: OwnedDescriptor, _ prefix: String, depth: Int, into code: inout SourceSnapshot.Code
  ) throws(CodeFailure) {
    for name in names(in: directory) {
      let entry = DirectoryEntry(name, in: directory)
      let path = prefix + name
      guard let attributes = try? entry.attributes else { continue }
      if attributes.st_mode & S_IFMT == S_IFDIR {
        guard depth < Self.deepestDirectory, !name.hasPrefix("."),
          let inner = try? entry.open(O_RDONLY | O_DIRECTORY)
        else { continue }
        try readDirectory(inner, "\(path)/", depth: depth + 1, into: &code)
        continue
      }
      // The kernel's build leaves NAME.mod.c behind.
      guard name.hasSuffix(".h") || name.hasSuffix(".c"), !name.hasSuffix(".mod.c"),
        let bytes = try content(of: entry, code.givenDirectory + path)
      else { continue }
      try add(.init(name: path, bytes: bytes), to: &code)
      guard name.hasSuffix(".c"), depth == 0 else { continue }
      if Self.isProgram(bytes) {
        code.notes.append(
          "\(code.givenDirectory)\(path) has a main function: it is a program, and not compiled into the module"
        )
      } else {
        code.sources.append(path)
      }
    }
  }

  private func add(_ file: SourceSnapshot.File, to code: inout SourceSnapshot.Code)
    throws(CodeFailure)
  {
    code.files.append(file)
    guard code.files.count <= Self.mostFiles,
      code.files.reduce(0, { $0 + $1.bytes.count }) <= Self.largestCode
    else {
      throw CodeFailure(
        "\(code.givenDirectory.isEmpty ? "." : code.givenDirectory) has too many C files and headers: at most \(Self.mostFiles) files and \(Self.largestCode >> 20) MiB are taken: put the code into a directory of its own"
      )
    }
  }

  /// Whether a C file defines `main`, as a test program in the directory of a module does.
  static func isProgram(_ bytes: [UInt8]) -> Bool {
    for line in bytes.split(separator: UInt8(ascii: "\n")) {
      guard let first = line.first, first != UInt8(ascii: " "), first != UInt8(ascii: "\t"),
        first != UInt8(ascii: "/"), first != UInt8(ascii: "*")
      else { continue }
      let text = String(decoding: line.prefix(200), as: UTF8.self)
      for start in ["int main(", "int main (", "main(", "main (", "void main("]
      where text.hasPrefix(start) {
        return true
      }
    }
    return false
  }

  // MARK: - Patches

  private func readPatched(_ given: String) throws(CodeFailure) -> SourceSnapshot.Code {
    guard let linux = sources.linux else {
      throw CodeFailure("--patch needs the kernel's tree: give --linux DIRECTORY")
    }
    let tree = try kernelTree(linux)
    guard let bytes = try content(of: find(given, "patch"), given) else {
      throw CodeFailure("\(given) is not a regular file: give --patch the output of git diff")
    }
    let patch = try PatchFile(parsing: bytes, name: given)
    try patch.requireSupport()
    var code = SourceSnapshot.Code()
    code.patch = bytes
    code.givenDirectory = tree.hasSuffix("/") ? tree : "\(tree)/"
    code.absoluteDirectory = absolute(code.givenDirectory)
    for file in patch.files {
      if let old = file.old {
        let path = code.givenDirectory + old
        let entry = try find(path, "linux")
        guard let bytes = try content(of: entry, path) else {
          throw CodeFailure("\(path) is not a regular file: give --linux a kernel's tree")
        }
        try add(.init(name: old, bytes: bytes), to: &code)
      }
      if let new = file.new, PatchFile.compiled.contains(new) { code.sources.append(new) }
    }
    let headers = patch.headers
    for file in headers.files { try add(file, to: &code) }
    code.notes += headers.notes
    guard !code.sources.isEmpty else {
      throw CodeFailure(
        "\(given) changes no C file that virt-walker compiles: it takes changes of \(PatchFile.compiled.joined(separator: ", "))"
      )
    }
    return code
  }

  /// The directory of a kernel's tree.
  private func kernelTree(_ given: String) throws(CodeFailure) -> String {
    if Self.isNumber(given) {
      let archive = "/usr/src/linux-source-\(given).tar.xz"
      throw CodeFailure(
        access(archive, F_OK) == 0
          ? "--patch needs the tree of --linux \(given): unpack the kernel's source, and name its directory: tar -C /tmp -xf \(archive), then --linux /tmp/linux-source-\(given)"
          : "--patch needs the tree of --linux \(given), and the source of that kernel is not here: apt-get install linux-source-\(given), unpack /usr/src/linux-source-\(given).tar.xz, and name the directory: --linux DIRECTORY"
      )
    }
    var attributes = stat()
    guard stat(absolute(given), &attributes) == 0, attributes.st_mode & S_IFMT == S_IFDIR else {
      throw CodeFailure("--linux \(given): there is no such directory: give a kernel's tree")
    }
    return given
  }

  /// Whether a text has only digits and dots between them, as a version.
  package static func isNumber(_ text: String) -> Bool {
    text.utf8.first.map { (48...57).contains($0) } ?? false
      && text.utf8.allSatisfy { $0 == UInt8(ascii: ".") || (48...57).contains($0) }
  }

  /// The last PATCHLEVEL of each VERSION whose functions the runtime has, and the first version of all.
  private static let lastLevels: [UInt: UInt] = [5: 19, 6: 19, 7: 3]
  private static let firstVersion: (UInt, UInt) = (5, 10)

  /// The version that the user has given in the place of a tree.
  static func kernelVersion(_ given: String) throws(CodeFailure) -> String {
    let numbers = given.split(separator: ".", omittingEmptySubsequences: false).map { UInt($0) }
    guard numbers.count == 2, let version = numbers[0], let level = numbers[1],
      let last = lastLevels[version], level <= last, (version, level) >= firstVersion
    else {
      throw CodeFailure(
        "--linux \(given): virt-walker has the functions of Linux 5.10 to 7.3: give one of these versions, such as 6.12, or the directory of a kernel's tree"
      )
    }
    return "\(version).\(level)"
  }

  private func kernelVersion(of tree: String) throws(CodeFailure) -> String {
    let path = tree.hasSuffix("/") ? "\(tree)Makefile" : "\(tree)/Makefile"
    let text = String(decoding: try content(of: find(path, "linux"), path) ?? [], as: UTF8.self)
    guard let version = Self.kernelVersion(inMakefile: text) else {
      throw CodeFailure(
        "\(path) has no VERSION and PATCHLEVEL: --linux needs the directory of a kernel's tree")
    }
    return version
  }

  /// `VERSION.PATCHLEVEL` of the first lines of a kernel's Makefile.
  package static func kernelVersion(inMakefile text: String) -> String? {
    func value(_ name: String) -> UInt? {
      for line in text.split(separator: "\n").prefix(20) {
        let words = line.split(separator: " ")
        if words.count == 3, words[0] == name, words[1] == "=" { return UInt(words[2]) }
      }
      return nil
    }
    guard let version = value("VERSION"), let level = value("PATCHLEVEL") else { return nil }
    return "\(version).\(level)"
  }

  // MARK: - Files

  private func absolute(_ path: String) -> String {
    path.hasPrefix("/") ? path : "\(workingDirectory)/\(path)"
  }

  /// The entry of a path that the user has given. A link there is not followed: it may be the link of another author, in an archive.
  private func find(_ given: String, _ option: String) throws(CodeFailure) -> DirectoryEntry {
    let path = FilePath(absolute(given))
    let isNamed = path.lastComponent?.kind == .regular
    let attributes: stat
    let entry: DirectoryEntry
    do throws(Errno) {
      entry = try DirectoryEntry(isNamed ? path : path.lexicallyNormalized())
      attributes = try entry.attributes
    } catch {
      throw unreadable(given, option, error)
    }
    guard attributes.st_mode & S_IFMT != S_IFLNK else {
      throw CodeFailure("\(given) is a symbolic link: name the file itself")
    }
    return entry
  }

  private func unreadable(_ given: String, _ option: String, _ error: Errno) -> CodeFailure {
    let advice =
      switch error {
      case .noSuchFileOrDirectory: "give --\(option) a file that exists"
      case .tooManySymbolicLinkLevels:
        "a symbolic link on the way belongs to another user: give the path without links"
      default: "make it readable for you"
      }
    return CodeFailure("cannot read \(given): \(error): \(advice)")
  }

  /// The bytes of a file; nil if it is not a regular file.
  private func content(of entry: DirectoryEntry, _ given: String) throws(CodeFailure) -> [UInt8]? {
    let file: OwnedDescriptor
    do throws(Errno) {
      file = try entry.openRegularFile(O_RDONLY)
    } catch {
      // A link, a directory, a FIFO.
      if error == .notPermitted || error == .tooManySymbolicLinkLevels { return nil }
      throw unreadable(given, "module", error)
    }
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 1 << 16)
    while bytes.count <= Self.largestFile {
      let count = Glibc.read(file.descriptor.rawValue, &buffer, buffer.count)
      guard count >= 0 else { throw unreadable(given, "module", .current) }
      guard count > 0 else { return bytes }
      bytes += buffer[..<count]
    }
    throw CodeFailure(
      "\(given) is larger than \(Self.largestFile >> 20) MiB: C code of that size is not taken")
  }

  private func names(in directory: OwnedDescriptor) -> [String] {
    directory.entryNames(atMost: 4096)
  }
}

import CLinux
import CharacterDeviceServer
import Glibc
import Hashing
import SystemPackage

/// The files of a module, which are copied into a directory of their own: C files, headers, and the rules of Kbuild.
struct ModuleSources: Equatable {
  /// The files and the Kbuild file that builds them.
  private(set) var files: [LabFile] = []
  /// The path that the user has given, with a slash at the end if it is a directory; names of messages begin with it.
  let shownDirectory: String

  private static let largestFile = 1 << 20
  private static let mostFiles = 256
  private static let largestCode = 8 << 20
  private static let deepestDirectory = 4

  /// Reads a C file with the headers beside it, or a directory.
  init(at given: String, workingDirectory: String) throws(LabFailure) {
    let path = FilePath(given.hasPrefix("/") ? given : "\(workingDirectory)/\(given)")
      .lexicallyNormalized()
    let entry: DirectoryEntry
    let attributes: stat
    do throws(Errno) {
      entry = try DirectoryEntry(path)
      attributes = try entry.attributes
    } catch {
      throw LabFailure(
        "cannot read \(given): \(error): give --module a C file or a directory that exists")
    }
    switch attributes.st_mode & S_IFMT {
    case S_IFLNK: throw LabFailure("\(given) is a symbolic link: name the file itself")
    case S_IFDIR:
      shownDirectory = given.hasSuffix("/") ? given : "\(given)/"
      guard let directory = try? entry.open(O_RDONLY | O_DIRECTORY) else {
        throw LabFailure("cannot read \(given): \(Errno.current): make it readable for you")
      }
      try readDirectory(directory, "", depth: 0)
      try addRules(named: path.lastComponent?.string ?? "module", given)
    case S_IFREG:
      let name = path.lastComponent?.string ?? ""
      guard name.hasSuffix(".c"), Self.isSafe(name) else {
        throw LabFailure(
          "\(given) is not a C file: the name of a module's file has letters, digits, - and _, and ends in .c"
        )
      }
      shownDirectory = String(given.dropLast(name.utf8.count))
      try add(name, DirectoryEntry(name, in: entry.directory))
      if let directory = try? DirectoryEntry(".", in: entry.directory).open(O_RDONLY | O_DIRECTORY)
      {
        for header in LabFiles.names(in: directory) where header.hasSuffix(".h") {
          // A directory such as /tmp can have headers of anybody: a file that cannot be taken is left out.
          try? add(header, DirectoryEntry(header, in: directory))
        }
      }
      setRules("obj-m := \(name.dropLast(2)).o\n")
    default:
      throw LabFailure("\(given) is no regular file: give --module a C file or a directory")
    }
  }

  /// Takes files that are not in the file system.
  ///
  /// - Parameters:
  ///   - given: The files.
  ///   - module: The name of a C file, or of a directory; `.` for the directory of all files.
  init(_ given: [LabFile], named module: String) throws(LabFailure) {
    let isFile = given.contains { $0.name == module }
    let parts = module.split(separator: "/")
    if isFile {
      shownDirectory = String(module.dropLast(parts.last?.utf8.count ?? 0))
    } else {
      shownDirectory = module == "." ? "" : parts.joined(separator: "/") + "/"
    }
    // The order of the objects must not depend on that of an archive.
    for file in given.sorted(by: { $0.name < $1.name })
    where file.name.hasPrefix(shownDirectory) {
      let name = String(file.name.dropFirst(shownDirectory.count))
      guard
        name.split(separator: "/", omittingEmptySubsequences: false)
          .allSatisfy({ Self.isSafe(String($0)) })
      else { continue }
      let isTaken =
        isFile
        ? file.name == module || name.hasSuffix(".h") && !name.contains("/")
        : Self.isTaken(name)
      if isTaken { try add(name, file.bytes) }
    }
    guard isFile else {
      try addRules(named: parts.last.map(String.init) ?? "module", module)
      return
    }
    guard let name = parts.last, files.contains(where: { $0.name == name }), name.hasSuffix(".c")
    else {
      throw LabFailure(
        "\(module) is not a C file: the name of a module's file has letters, digits, - and _, and ends in .c",
        isOfCode: true)
    }
    setRules("obj-m := \(name.dropLast(2)).o\n")
  }

  /// The names of the modules that the rules make, if they can be told from the rules alone.
  var hash: String {
    var hash = InputHash()
    for file in files {
      hash.add(file.name)
      hash.add(file.bytes)
    }
    return hash.name
  }

  // MARK: - Files

  private mutating func readDirectory(
    _ directory: OwnedDescriptor, _ prefix: String, depth: Int
  ) throws(LabFailure) {
    for name in LabFiles.names(in: directory) where Self.isSafe(name) {
      let entry = DirectoryEntry(name, in: directory)
      guard let attributes = try? entry.attributes else { continue }
      if attributes.st_mode & S_IFMT == S_IFDIR {
        guard depth < Self.deepestDirectory, let inner = try? entry.open(O_RDONLY | O_DIRECTORY)
        else { continue }
        try readDirectory(inner, "\(prefix)\(name)/", depth: depth + 1)
      } else if Self.isTaken(name) || depth == 0 && name == "Makefile" {
        guard attributes.st_mode & S_IFMT == S_IFREG else { continue }
        try add(prefix + name, entry)
      }
    }
  }

  /// Whether a file of the directory is taken. A build of the module leaves NAME.mod.c behind.
  static func isTaken(_ name: String) -> Bool {
    (name.hasSuffix(".c") && !name.hasSuffix(".mod.c")) || name.hasSuffix(".h") || name == "Kbuild"
  }

  /// Whether a name means nothing to `make` and a shell.
  static func isSafe(_ name: String) -> Bool {
    !name.isEmpty && !name.hasPrefix(".") && !name.hasPrefix("-")
      && name.utf8.allSatisfy {
        (65...90).contains($0) || (97...122).contains($0) || (48...57).contains($0)
          || [UInt8(ascii: "_"), UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "+")]
            .contains($0)
      }
  }

  private mutating func add(_ name: String, _ entry: DirectoryEntry) throws(LabFailure) {
    let shown = shownDirectory + name
    let file: OwnedDescriptor
    do throws(Errno) {
      file = try entry.openRegularFile(O_RDONLY)
    } catch {
      throw LabFailure("cannot read \(shown): \(error): make it a regular file that you can read")
    }
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 1 << 16)
    while bytes.count <= Self.largestFile {
      let count = Glibc.read(file.descriptor.rawValue, &buffer, buffer.count)
      guard count > 0 else { break }
      bytes += buffer[..<count]
    }
    try add(name, bytes)
  }

  private mutating func add(_ name: String, _ bytes: [UInt8]) throws(LabFailure) {
    let all = files.reduce(bytes.count) { $0 + $1.bytes.count }
    guard bytes.count <= Self.largestFile, all <= Self.largestCode, files.count < Self.mostFiles
    else {
      throw LabFailure(
        "\(shownDirectory)\(name) is too much: a module has at most \(Self.mostFiles) files, \(Self.largestFile >> 20) MiB each and \(Self.largestCode >> 20) MiB together"
      )
    }
    files.append(LabFile(name: name, bytes: bytes))
  }

  // MARK: - Rules

  private mutating func setRules(_ text: String) {
    files.append(LabFile(name: "Kbuild", bytes: Array(text.utf8)))
  }

  /// Finds the rules: the Kbuild file, the lines of a Makefile that name objects, or a module of all C files.
  private mutating func addRules(named name: String, _ given: String) throws(LabFailure) {
    let makefile = files.first { $0.name == "Makefile" }
    files.removeAll { $0.name == "Makefile" }
    if files.contains(where: { $0.name == "Kbuild" }) { return }
    if let makefile {
      let rules = Self.rules(inMakefile: String(decoding: makefile.bytes, as: UTF8.self))
      if !rules.isEmpty {
        setRules(rules.joined(separator: "\n") + "\n")
        return
      }
    }
    let sources = files.filter { $0.name.hasSuffix(".c") && !$0.name.contains("/") }
      .filter { CFunctions(in: $0.bytes).definition(of: "main") == nil }
      .map { $0.name.dropLast(2) }
    guard !sources.isEmpty else {
      throw LabFailure(
        "\(given) has no C file of a module: give a C file, or the directory with the files of a module"
      )
    }
    if sources.count == 1 {
      setRules("obj-m := \(sources[0]).o\n")
      return
    }
    var module = String(name.map { Self.isSafe("x\($0)") && $0 != "." && $0 != "+" ? $0 : "_" })
    if module.hasPrefix("-") { module = "_" + module.dropFirst() }
    // The object of a module of several files cannot have the name of one of them.
    if sources.contains(Substring(module)) { module += "_module" }
    let objects = sources.map { "\($0).o" }.joined(separator: " ")
    setRules("obj-m := \(module).o\n\(module)-y := \(objects)\n")
  }

  /// The lines of a Makefile that name the module's objects. Nothing of the file is run: a line with another variable than those of Kbuild,
  /// or with a `$`, is left out.
  static func rules(inMakefile text: String) -> [String] {
    var rules: [String] = []
    let joined = text.replacing("\\\n", with: " ")
    for line in joined.split(separator: "\n") {
      let line = line.prefix { $0 != "#" }
      guard let equals = line.firstIndex(of: "=") else { continue }
      var left = line[..<equals]
      while let last = left.last, ":+?".contains(last) { left = left.dropLast() }
      let variable = left.split(separator: " ").joined(separator: " ")
      let sign = line[left.endIndex...equals]
      let words = line[line.index(after: equals)...].split { $0 == " " || $0 == "\t" }
      let isList =
        variable == "obj-m" || variable.hasSuffix("-y") || variable.hasSuffix("-objs")
      guard isList, isSafe(variable), !words.isEmpty else { continue }
      if variable.hasPrefix("ccflags") || variable.hasPrefix("asflags") {
        guard words.allSatisfy({ $0.hasPrefix("-D") && isSafe(String($0.dropFirst(2)), "=") })
        else { continue }
      } else {
        guard words.allSatisfy({ isSafe(String($0), "/") && !$0.contains("..") }) else { continue }
      }
      rules.append("\(variable) \(sign) \(words.joined(separator: " "))")
    }
    return rules.contains { $0.hasPrefix("obj-m ") } ? rules : []
  }

  private static func isSafe(_ word: String, _ allowed: Character) -> Bool {
    word.split(separator: allowed, omittingEmptySubsequences: false)
      .allSatisfy { isSafe(String($0)) || allowed == "/" && $0.isEmpty }
      && !word.hasPrefix("/")
  }
}

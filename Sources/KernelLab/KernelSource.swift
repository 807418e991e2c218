import CLinux
import CharacterDeviceServer
import Glibc
import Hashing
import SystemPackage
import UserCode

/// The place from which the source of a kernel comes.
struct KernelSource {
  enum Kind: Equatable {
    /// A version of Debian's packages linux-source-VERSION.
    case version(String)
    /// The absolute path of a kernel's tree.
    case directory(String)
    /// The absolute path of an archive of a kernel's tree.
    case archive(String)
  }

  let kind: Kind
  /// The text of the option.
  let given: String
  /// The name of the directory in the cache.
  let name: String

  init(_ given: String?, workingDirectory: String) throws(LabFailure) {
    let given = given ?? LabSources.defaultVersion
    self.given = given
    if SourceReader.isNumber(given) {
      let numbers = given.split(separator: ".", omittingEmptySubsequences: false).map { UInt($0) }
      guard numbers.count == 2, let version = numbers[0], let level = numbers[1] else {
        throw LabFailure("--linux \(given) is no version: give two numbers, such as 6.1")
      }
      guard (version, level) >= KernelSource.first else {
        throw LabFailure("--linux \(given): the first version with a lab is 5.10")
      }
      kind = .version("\(version).\(level)")
      name = "linux-\(version).\(level)"
      return
    }
    let path = FilePath(given.hasPrefix("/") ? given : "\(workingDirectory)/\(given)")
      .lexicallyNormalized()
    var attributes = stat()
    guard stat(path.string, &attributes) == 0 else {
      throw LabFailure(
        "cannot read \(given): \(Errno.current): give --linux a version, a kernel's tree, or an archive of one"
      )
    }
    var hash = InputHash()
    hash.add(path.string)
    switch attributes.st_mode & S_IFMT {
    case S_IFDIR:
      kind = .directory(path.string)
      name = "tree-\(hash.name.prefix(12))"
    case S_IFREG:
      guard Self.decompression(path.string) != nil else {
        throw LabFailure(
          "\(given) is no archive: its name ends in .tar, .tar.gz, .tar.xz, .tar.bz2 or .tar.zst")
      }
      hash.add("\(attributes.st_size) \(attributes.st_mtim.tv_sec) \(attributes.st_mtim.tv_nsec)")
      kind = .archive(path.string)
      name = "archive-\(hash.name.prefix(12))"
    default:
      throw LabFailure("\(given) is neither a directory nor an archive of a kernel's tree")
    }
  }

  private static let first: (UInt, UInt) = (5, 10)

  var title: String {
    switch kind {
    case .version(let version): "Linux \(version)"
    case .directory, .archive: "the kernel of \(given)"
    }
  }

  /// tar's option for the suffix of an archive; nil for another file.
  static func decompression(_ path: String) -> [String]? {
    let suffixes: [(String, [String])] = [
      (".tar.xz", ["-J"]), (".txz", ["-J"]), (".tar.gz", ["-z"]), (".tgz", ["-z"]),
      (".tar.bz2", ["-j"]), (".tar.zst", ["--zstd"]), (".tar", []),
    ]
    return suffixes.first { path.hasSuffix($0.0) }?.1
  }

  /// Whether the project's own hook is put into the kernel if the user names no other change. A tree of the user's is taken as it is.
  var takesOwnHook: Bool {
    if case .version = kind { true } else { false }
  }
}

/// The files of a user's tree at one time: their sizes and times.
struct TreeManifest: Equatable {
  struct Stamp: Equatable {
    var size: Int
    var seconds: Int
    var nanoseconds: Int
  }

  var files: [String: Stamp] = [:]

  private static let mostFiles = 400_000

  /// Looks at all files of a tree that can be sources.
  init(of tree: OwnedDescriptor, given: String) throws(LabFailure) {
    try visit(tree, "", depth: 0)
    guard files.count < Self.mostFiles else {
      throw LabFailure("\(given) has too many files: give --linux a kernel's tree")
    }
  }

  init() {}

  private mutating func visit(
    _ directory: OwnedDescriptor, _ prefix: String, depth: Int
  ) throws(LabFailure) {
    for name in LabFiles.names(in: directory) where !Self.isProduct(prefix, name) {
      let entry = DirectoryEntry(name, in: directory)
      guard let attributes = try? entry.attributes, files.count < Self.mostFiles else { continue }
      switch attributes.st_mode & S_IFMT {
      case S_IFDIR:
        guard depth < 32, let inner = try? entry.open(O_RDONLY | O_DIRECTORY) else { continue }
        try visit(inner, "\(prefix)\(name)/", depth: depth + 1)
      case S_IFREG, S_IFLNK:
        files[prefix + name] = Stamp(
          size: Int(attributes.st_size), seconds: attributes.st_mtim.tv_sec,
          nanoseconds: attributes.st_mtim.tv_nsec)
      default: continue
      }
    }
  }

  private static let productSuffixes = [
    ".o", ".a", ".ko", ".cmd", ".mod", ".mod.c", ".order", ".symvers", ".dtb", ".dtbo", ".so",
    ".so.dbg", ".tmp", ".su", ".gcno", ".rej", ".orig",
  ]

  /// Whether a file is known to be made by a build or by git, so that it is not copied.
  static func isProduct(_ prefix: String, _ name: String) -> Bool {
    if name == ".git" || name.hasPrefix(".tmp") || name.contains("\n") { return true }
    if prefix.isEmpty,
      name.hasPrefix("vmlinux") || name.hasPrefix(".config") || name == "System.map"
    {
      return true
    }
    if prefix.hasSuffix("include/"), name == "generated" || name == "config" { return true }
    if prefix.hasPrefix("arch/"), prefix.hasSuffix("/boot/"), name.hasPrefix("Image") {
      return true
    }
    return productSuffixes.contains { name.hasSuffix($0) }
  }

  /// Whether a file that has come after the copy is a source, and not a product of a build.
  static func isSource(_ path: String) -> Bool {
    let name = path.split(separator: "/").last.map(String.init) ?? path
    return [".c", ".h", ".S", ".lds", ".awk", ".sh", ".pl", ".py", ".tbl"].contains {
      name.hasSuffix($0)
    } || name.hasPrefix("Makefile") || name.hasPrefix("Kconfig") || name == "Kbuild"
  }

  // MARK: - As text

  var text: String {
    files.map { "\($1.size) \($1.seconds) \($1.nanoseconds) \($0)\n" }.joined()
  }

  init(parsing text: String) {
    for line in text.split(separator: "\n") {
      let words = line.split(separator: " ", maxSplits: 3)
      guard words.count == 4, let size = Int(words[0]), let seconds = Int(words[1]),
        let nanoseconds = Int(words[2])
      else { continue }
      files[String(words[3])] = Stamp(size: size, seconds: seconds, nanoseconds: nanoseconds)
    }
  }

  /// The files that differ from an older manifest. A new file counts only if it is a source.
  func changes(since old: TreeManifest) -> [String] {
    var changed = files.filter { name, stamp in
      old.files[name].map { $0 != stamp } ?? Self.isSource(name)
    }.map(\.key)
    changed += old.files.keys.filter { files[$0] == nil && Self.isSource($0) }
    return changed.sorted()
  }
}

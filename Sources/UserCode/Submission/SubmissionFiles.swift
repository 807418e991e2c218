import CLinux
import CharacterDeviceServer
import Glibc
import Scenarios
import SystemPackage

/// The source files of a submission: a directory, an archive, or one C file.
///
/// Only C files, headers, diffs and the manifest are taken, in bounds, and no link is followed. The files of an archive come from tar or
/// unzip, which run as confined tools and write nothing: this process takes the text of each file from their output.
public struct SubmissionFiles {
  /// The files. Their names are paths in the submission, without `..`.
  var files: [SourceSnapshot.File] = []
  /// The bytes of an archive that is not unpacked yet.
  private var archive: (bytes: [UInt8], isZip: Bool)?

  static let largestFile = 1 << 20
  static let mostFiles = 256
  static let largestSubmission = 8 << 20
  static let largestArchive = 16 << 20
  private static let deepestDirectory = 4
  /// The name of the manifest.
  static let manifest = "submission.txt"

  private static let kinds =
    "give a directory, an archive (.tar, .tar.gz, .tgz, .tar.xz, .zip) or a C file"

  /// Files that are given.
  init(_ files: [SourceSnapshot.File]) { self.files = files }

  /// Reads a directory, the bytes of an archive, or a file.
  public init(at path: String) throws(CodeFailure) {
    let entry: DirectoryEntry
    let attributes: Glibc.stat
    do throws(Errno) {
      entry = try DirectoryEntry(FilePath(path))
      attributes = try entry.attributes
    } catch {
      throw CodeFailure("\(path) cannot be read: \(error): \(Self.kinds)")
    }
    if attributes.st_mode & S_IFMT == S_IFDIR {
      guard let directory = try? entry.open(O_RDONLY | O_DIRECTORY) else {
        throw CodeFailure("\(path) cannot be read: \(Errno.current): make it readable for you")
      }
      try read(directory, "", depth: 0)
      return
    }
    let isZip = path.hasSuffix(".zip")
    let isArchive = isZip || [".tar", ".tar.gz", ".tgz", ".tar.xz"].contains { path.hasSuffix($0) }
    guard isArchive || Self.isTaken(path) else {
      throw CodeFailure("\(path) is no submission: \(Self.kinds)")
    }
    let limit = isArchive ? Self.largestArchive : Self.largestFile
    let bytes = try Self.content(of: entry, named: path, limit: limit)
    if isArchive {
      archive = (bytes, isZip)
    } else {
      try add(.init(name: FilePath(path).lastComponent?.string ?? path, bytes: bytes))
    }
  }

  /// A number for the content, which tells a changed submission from an unchanged one. It is FNV-1a, which is no protection against a
  /// person who makes two submissions with the same number.
  public var fingerprint: UInt64 {
    var sum = Fingerprint()
    if let archive { sum.add(archive.bytes) }
    for file in files.sorted(by: { $0.name < $1.name }) {
      sum.add(Array(file.name.utf8) + [0])
      sum.add(file.bytes)
    }
    return sum.value
  }

  /// Takes the files out of the archive, if the submission is one. Tar and unzip run as the user of this process.
  public mutating func unpack() throws(CodeFailure) {
    guard let archive else { return }
    let reader = try SubmissionArchive(archive.bytes, isZip: archive.isZip)
    defer { reader.remove() }
    self.archive = nil
    for name in try reader.names() where Self.isTaken(name) {
      let own = name.hasPrefix("./") ? String(name.dropFirst(2)) : name
      try add(.init(name: own, bytes: try reader.content(of: name)))
    }
    stripDirectory()
  }

  // MARK: - Directories

  private mutating func read(
    _ directory: OwnedDescriptor, _ prefix: String, depth: Int
  ) throws(CodeFailure) {
    for name in BuildDirectory.names(in: directory).sorted() {
      let entry = DirectoryEntry(name, in: directory)
      guard !name.hasPrefix("."), let attributes = try? entry.attributes else { continue }
      switch attributes.st_mode & S_IFMT {
      case S_IFDIR:
        guard depth < Self.deepestDirectory, let inner = try? entry.open(O_RDONLY | O_DIRECTORY)
        else { continue }
        try read(inner, "\(prefix)\(name)/", depth: depth + 1)
      case S_IFREG where Self.isTaken(prefix + name):
        let bytes = try Self.content(of: entry, named: prefix + name, limit: Self.largestFile)
        try add(.init(name: prefix + name, bytes: bytes))
      default: break
      }
    }
    if depth == 0 { stripDirectory() }
  }

  private static func content(
    of entry: DirectoryEntry, named name: String, limit: Int
  ) throws(CodeFailure) -> [UInt8] {
    guard let file = try? entry.openRegularFile(O_RDONLY) else {
      throw CodeFailure(
        "\(name) cannot be read: \(Errno.current): give a regular file that you can read")
    }
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 1 << 16)
    while bytes.count <= limit {
      let count = Glibc.read(file.descriptor.rawValue, &buffer, buffer.count)
      guard count > 0 else { return bytes }
      bytes += buffer[..<count]
    }
    throw CodeFailure("\(name) is too large: at most \(limit >> 20) MiB are taken")
  }

  // MARK: - Bounds

  private mutating func add(_ file: SourceSnapshot.File) throws(CodeFailure) {
    guard !files.contains(where: { $0.name == file.name }) else {
      throw CodeFailure("the submission has \(file.name) twice: hand in one of the two")
    }
    files.append(file)
    guard files.count <= Self.mostFiles,
      files.reduce(0, { $0 + $1.bytes.count }) <= Self.largestSubmission
    else {
      throw CodeFailure(
        "the submission is too large: at most \(Self.mostFiles) C files, headers and diffs with \(Self.largestSubmission >> 20) MiB are taken"
      )
    }
  }

  /// Whether a file of this name can be a part of a submission.
  private static func isTaken(_ path: String) -> Bool {
    let parts = path.split(separator: "/", omittingEmptySubsequences: false)
    guard let name = parts.last,
      !path.utf8.contains(where: { $0 < 0x20 || $0 == 0x7f || $0 == UInt8(ascii: "\\") }),
      path.utf8.count < 512
    else { return false }
    return name == manifest
      || [".c", ".h", ".patch", ".diff"].contains {
        name.hasSuffix($0) && name.count > $0.count && !name.hasSuffix(".mod.c")
      }
  }

  /// Removes the one directory that contains all files: many archives have one.
  private mutating func stripDirectory() {
    while let first = files.first?.name.firstIndex(of: "/").map({ files[0].name[...$0] }),
      files.allSatisfy({ $0.name.hasPrefix(first) })
    {
      for index in files.indices { files[index].name.removeFirst(first.count) }
    }
  }
}

/// FNV-1a with 64 bits.
public struct Fingerprint {
  public private(set) var value: UInt64 = 0xcbf2_9ce4_8422_2325

  public init() {}

  public mutating func add(_ bytes: [UInt8]) {
    for byte in bytes { value = (value ^ UInt64(byte)) &* 0x100_0000_01b3 }
  }
}

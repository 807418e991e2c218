import Glibc
import SystemPackage

/// The path of a node that exists only for the processes of a command: finds out whether a path of such a process leads to the node.
///
/// A path is looked up as the process sees it, before the kernel looks it up. Another thread can change the path in between. It gains
/// nothing: the kernel then answers with the rights of the process itself.
struct NodePath {
  /// The file to which a path leads.
  enum Target {
    /// The node.
    case node
    /// An open file of the node, by its pipe: the path is in /proc/PID/fd.
    case file(pipe: UInt64)
    /// The node, with a slash after it.
    case belowNode
  }

  let path: FilePath
  private let bytes: [UInt8]
  private let name: [UInt8]
  /// The directory of the node; nil if there is none.
  private let directory: Directory?

  private struct Directory: Equatable {
    let device: dev_t
    let inode: ino_t

    init?(_ path: [UInt8]) {
      var attributes = stat()
      guard withCString(path, { stat($0, &attributes) }) == 0 else { return nil }
      device = attributes.st_dev
      inode = attributes.st_ino
    }
  }

  /// The file system of this process's own tree, in which no path is looked up.
  private let ownTree: OwnTree?

  /// - Parameters:
  ///   - path: An absolute path, whose directory has no symbolic links.
  ///   - tree: The directory of a tree that this process serves; nil if there is none.
  init(_ path: FilePath, besides tree: FilePath? = nil) throws(Errno) {
    self.path = path
    ownTree = try tree.map { (tree) throws(Errno) in try OwnTree(tree) }
    bytes = Array(path.string.utf8)
    name = Array((path.lastComponent?.string ?? "").utf8)
    directory = Directory(Array(path.removingLastComponent().string.utf8))
  }

  /// The device and the inode that stat(2) gives for the node.
  var device: dev_t { directory?.device ?? 0 }

  private static let slash = UInt8(ascii: "/")
  /// The most symbolic links on the way, as the kernel has it.
  private static let mostLinks = 40

  /// Looks up a path of a process.
  ///
  /// - Parameters:
  ///   - given: The path, not empty.
  ///   - directory: The directory of a relative path: a descriptor of the process, or `AT_FDCWD`.
  ///   - process: The process.
  ///   - follows: Whether a symbolic link at the end is followed.
  /// - Returns: Nil if the path leads to another file, or nowhere.
  func target(
    of given: [UInt8], in directory: Int32, of process: CallerProcess, follows: Bool
  ) -> Target? {
    if given == bytes { return .node }
    var path = Self.place(of: given, in: directory, process)
    for _ in 0..<Self.mostLinks {
      let end = path.lastIndex { $0 != Self.slash }.map { $0 + 1 } ?? 0
      let hasSlash = end < path.count
      path.removeSubrange(end...)
      guard let start = leadAroundTree(&path) else { return nil }
      if path[(start + 1)...] == name[...], isInDirectory(path[...start]) {
        return hasSlash ? .belowNode : .node
      }
      guard follows || hasSlash, let link = CallerProcess.link(path) else { return nil }
      if let pipe = CallerProcess.pipe(link) { return .file(pipe: pipe) }
      path =
        link.first == Self.slash
        ? Self.place(of: link, in: AT_FDCWD, process) : path[...start] + link
    }
    return nil
  }

  /// The pipe of a link in /proc/PID/fd, which is not followed; nil if the path is no such link.
  func pipe(
    ofLink given: [UInt8], in directory: Int32, of process: CallerProcess
  ) -> UInt64? {
    var path = Self.place(of: given, in: directory, process)
    guard leadAroundTree(&path) != nil else { return nil }
    return CallerProcess.link(path).flatMap { CallerProcess.pipe($0) }
  }

  /// Replaces a path that leads through this process's own tree.
  ///
  /// - Returns: The place of the last slash; nil if there is none, or if the file is in the tree.
  private func leadAroundTree(_ path: inout [UInt8]) -> Int? {
    guard let start = path.lastIndex(of: Self.slash) else { return nil }
    guard let ownTree else { return start }
    guard let directory = ownTree.pathOutside(Array(path[...start])) else { return nil }
    path = directory + path[(start + 1)...]
    return directory.count - 1
  }

  private func isInDirectory(_ path: ArraySlice<UInt8>) -> Bool {
    guard let directory else {
      // Without a directory, only the path itself leads to the node.
      return false
    }
    return Directory(Array(path)) == directory
  }

  /// The path for this process: the working directory and the descriptors of the other process are in /proc.
  private static func place(
    of path: [UInt8], in directory: Int32, _ process: CallerProcess
  ) -> [UInt8] {
    let own = "/proc/\(process.thread)/"
    guard path.first == slash else {
      return Array((own + (directory == AT_FDCWD ? "cwd/" : "fd/\(directory)/")).utf8) + path
    }
    // These names are links that differ for each process.
    for (prefix, replacement) in [
      ("/proc/self/", own), ("/proc/thread-self/", own), ("/dev/fd/", own + "fd/"),
    ] where path.starts(with: prefix.utf8) {
      return Array(replacement.utf8) + path.dropFirst(prefix.utf8.count)
    }
    return path
  }
}

/// Calls `body` with a path as C has it.
func withCString<Result>(
  _ path: [UInt8], _ body: (UnsafePointer<CChar>) -> Result
) -> Result {
  (path + [0]).withUnsafeBufferPointer { path in
    path.withMemoryRebound(to: CChar.self) { body($0.baseAddress!) }
  }
}

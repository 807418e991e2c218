import CLinux
import CharacterDeviceServer
import Glibc
import SystemPackage
import UserCode

/// The builder of what a lab boots: a kernel for arm64 with the user's changes, and file systems of host and guest.
///
/// The builds run as an ordinary user. They can change only their own directory in the cache, and reach neither the user's other files nor the
/// network, if the system has Landlock. The functions start processes, so they must be called while this process has one thread.
public final class LabBuilder {
  private let cache: FilePath
  private let user: Sandbox.User?
  private let progress: (String) -> Void

  /// - Parameters:
  ///   - cache: The directory for sources, trees and images.
  ///   - user: The user as whom a process of root's builds; nil to stay the same user.
  ///   - progress: Gets lines for people, such as `building Linux 6.1: 512 of 1432 files, about 3 min left`.
  public init(
    cache: FilePath = LabBuilder.usualCache, user: Sandbox.User?,
    progress: @escaping (String) -> Void
  ) {
    self.cache = cache.lexicallyNormalized()
    self.user = user
    self.progress = progress
  }

  /// The directory of the cache without another choice.
  public static var usualCache: FilePath {
    if geteuid() == 0 { return "/var/cache/virt-walker/lab" }
    func variable(_ name: String) -> FilePath? {
      getenv(name).map { FilePath(String(cString: $0)) }.flatMap { $0.isAbsolute ? $0 : nil }
    }
    let own =
      variable("XDG_CACHE_HOME") ?? variable("HOME").map { $0.appending(".cache") } ?? "/var/tmp"
    return own.appending("virt-walker/lab")
  }

  /// Builds what is missing. The same inputs as before build nothing.
  public func build(_ sources: LabSources) throws(LabFailure) -> LabImages {
    try build(onResult: { _, _ in }, { (_) throws(LabFailure) in sources })
  }

  /// Builds what is missing.
  ///
  /// - Parameters:
  ///   - onResult: Gets each name and value that the process tells.
  ///   - prepare: Finds the code. It runs in the process that builds.
  func build(
    onResult: (String, String) -> Void,
    _ prepare: (LabWorker) throws(LabFailure) -> LabSources
  ) throws(LabFailure) -> LabImages {
    let support = try LabSupport()
    try installPackages(support)
    try prepareCache()
    var path = [CChar](repeating: 0, count: Int(PATH_MAX) + 1)
    let workingDirectory =
      getcwd(&path, path.count) == nil ? "/" : FilePath(platformString: path).string
    let cache = self.cache
    // The directories can be removed between the end of the worker and the claim.
    for _ in 0..<3 {
      var results: [String: String] = [:]
      try LabWorker.run(as: user) { kind, text in
        guard kind == .result, let equals = text.firstIndex(of: "=") else {
          return self.progress(text)
        }
        let (name, value) = (String(text[..<equals]), String(text[text.index(after: equals)...]))
        results[name] = value
        onResult(name, value)
      } work: { (worker) throws(LabFailure) in
        let sources = try prepare(worker)
        let kernel = try KernelSource(sources.linux, workingDirectory: workingDirectory)
        try LabBuild(
          sources: sources, cache: cache, workingDirectory: workingDirectory, support: support,
          worker: worker, kernel: kernel
        ).run()
      }
      func result(_ name: String) -> FilePath { FilePath(results[name] ?? "") }
      let parts = ["host", "guest"].map(result)
      guard let claim = LabClaim(parts) else { continue }
      return LabImages(
        image: result("image"), hostInitramfs: parts[0].appending("initramfs"),
        guestInitramfs: parts[1].appending("initramfs"), kernelProgram: result("program"),
        release: results["release"] ?? "", usedBytes: Int(results["bytes"] ?? "") ?? 0,
        claim: claim)
    }
    throw LabFailure(
      "other builds have removed the images of this one: wait until they have ended, and try again")
  }

  // MARK: - Preparation

  /// Installs missing packages, if this is a process of root's.
  private func installPackages(_ support: LabSupport) throws(LabFailure) {
    let missing = LabRequirements.missing
    guard !missing.isEmpty else { return }
    let list = missing.joined(separator: " ")
    let advice = "the lab needs the packages \(list): apt-get install \(list)"
    guard geteuid() == 0 else { throw LabFailure(advice) }
    progress("installing packages: \(list)")
    // The script lets the installation end even if this process is ended.
    let result = ChildProgram(
      path: "/bin/sh", arguments: [support.installScript.string] + missing,
      environment: [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C",
      ], rules: nil
    ).run(seconds: 1200)
    guard LabRequirements.missing.isEmpty else {
      throw LabFailure(
        advice, after: result.output.split(separator: "\n").suffix(10).map(String.init))
    }
  }

  /// Makes the directory of the cache, which belongs to the user that builds.
  private func prepareCache() throws(LabFailure) {
    LabFiles.makeDirectories(cache.removingLastComponent())
    let isNew = mkdir(cache.string, 0o700) == 0
    do throws(Errno) {
      let directory = try DirectoryEntry(cache).open(O_RDONLY | O_DIRECTORY)
      if isNew, let user {
        guard fchown(directory.descriptor.rawValue, user.id, user.group) == 0 else {
          throw .current
        }
      }
      let attributes = try directory.descriptor.attributes()
      guard attributes.st_uid == user?.id ?? geteuid() else {
        throw LabCacheProblem.foreignOwner
      }
    } catch {
      throw LabFailure(
        error == LabCacheProblem.foreignOwner
          ? "\(cache) belongs to another user: remove it by virt-walkerd lab clean, or name another directory by --cache"
          : "cannot use \(cache): \(error): name another directory by --cache")
    }
    let tag = LabCache(path: cache)
    guard isNew || tag.isOurs || LabFiles.names(in: cache).isEmpty else {
      throw LabFailure(
        "\(cache) was not made by virt-walkerd: name another directory by --cache")
    }
    if !tag.isOurs {
      try LabWorker.run(
        as: user, take: { _, _ in }, work: { (_) throws(LabFailure) in try tag.mark() })
    }
  }

  // MARK: - Status and removal

  /// The trees of the cache; none if there is no cache.
  public func status() throws(LabFailure) -> [LabTree] {
    let tag = LabCache(path: cache)
    guard LabFiles.exists(cache) else { return [] }
    guard tag.isOurs else { throw notOurs }
    return tag.trees
  }

  /// Removes a tree, or all of them with the cache.
  ///
  /// - Parameter version: The name of a tree as ``status()`` gives it, or a version; nil for all.
  /// - Returns: The bytes that were freed, and the names of the trees that are in use and were left.
  public func clean(_ version: String?) throws(LabFailure) -> (freed: Int, left: [String]) {
    let tag = LabCache(path: cache)
    guard LabFiles.exists(cache) else { return (0, []) }
    guard tag.isOurs, let owner = tag.owner else { throw notOurs }
    if let version, !tag.trees.contains(where: { $0.isNamed(version) }) {
      throw LabFailure("the cache has no \(version): virt-walkerd lab status lists what is there")
    }
    var freed = 0
    var left: [String] = []
    // The owner's process removes the files: it can remove no file of another user.
    try LabWorker.run(as: geteuid() == 0 ? owner : nil) { kind, text in
      guard kind == .result else { return }
      if let bytes = Int(text) { freed += bytes } else { left.append(text) }
    } work: { (worker) throws(LabFailure) in
      for tree in tag.trees where version.map(tree.isNamed) ?? true {
        if tag.remove(tree) {
          worker.tell(.result, "\(tree.bytes)")
        } else {
          worker.tell(.result, "\(tree.name):")
        }
      }
    }
    left = left.map { String($0.dropLast()) }
    if version == nil, left.isEmpty { tag.removeEmpty() }
    return (freed, left)
  }

  private var notOurs: LabFailure {
    LabFailure(
      "\(cache) was not made by virt-walkerd, and nothing of it is removed: name the directory by --cache"
    )
  }
}

private enum LabCacheProblem {
  static let foreignOwner = Errno(rawValue: -1)
}

/// The files of one kernel in the cache.
public struct LabTree: Hashable, Sendable {
  /// The name of the directory, such as `linux-6.1`.
  public let name: String
  /// The kernel: `Linux 6.1`, or the directory or archive of the user's.
  public let title: String
  /// The bytes on the disk.
  public let bytes: Int
  /// The numbers of kernels with changes that are kept.
  public let changes: Int
  /// Whether the clean source is complete, and whether a kernel of it is.
  public let hasSource: Bool
  public let hasKernel: Bool

  func isNamed(_ text: String) -> Bool { name == text || name == "linux-\(text)" || title == text }
}

/// The directory with all that labs keep. A file marks it, so that nothing else is ever removed.
struct LabCache {
  let path: FilePath

  /// The tag of directories that backups can leave out, and a line of this project.
  private static let tag = """
    Signature: 8a477f597d28d172789f06886806bc55
    # This file is a cache directory tag created by virt-walkerd lab.

    """
  private var tagFile: FilePath { path.appending("CACHEDIR.TAG") }

  var isOurs: Bool { LabFiles.text(tagFile) == Self.tag }

  func mark() throws(LabFailure) { try LabFiles.writeWhole(tagFile, Array(Self.tag.utf8)) }

  var owner: Sandbox.User? {
    var attributes = stat()
    guard lstat(path.string, &attributes) == 0, attributes.st_mode & S_IFMT == S_IFDIR else {
      return nil
    }
    return Sandbox.User(
      name: "\(attributes.st_uid)", id: attributes.st_uid, group: attributes.st_gid)
  }

  private func isTree(_ name: String) -> Bool {
    let attributes = try? LabFiles.entry(name, in: path)?.attributes
    return ["linux-", "tree-", "archive-"].contains { name.hasPrefix($0) }
      && attributes.map { $0.st_mode & S_IFMT == S_IFDIR } ?? false
  }

  var trees: [LabTree] {
    LabFiles.names(in: path).filter(isTree).map { name in
      let root = path.appending(name)
      let configurations = LabFiles.names(in: root).filter { $0.hasPrefix("config-") }
        .map { root.appending($0) }
      return LabTree(
        name: name, title: LabFiles.text(root.appending("title")) ?? name,
        bytes: DiskUse.bytes(ofKernel: root),
        changes: configurations.reduce(0) {
          $0 + LabFiles.names(in: $1).count { $0.hasPrefix("change-") }
        },
        hasSource: LabFiles.exists(root.appending("complete")),
        hasKernel: configurations.contains { LabFiles.exists($0.appending("base/complete")) })
    }
  }

  /// Removes a tree, if no build runs and nobody claims its images.
  func remove(_ tree: LabTree) -> Bool {
    let root = path.appending(tree.name)
    let file = open(root.appending("lock").string, O_RDWR | O_CLOEXEC | O_NOFOLLOW)
    defer { if file >= 0 { close(file) } }
    if file >= 0, flock(file, LOCK_EX | LOCK_NB) != 0 { return false }
    var isFree = true
    for configuration in LabFiles.names(in: root) where configuration.hasPrefix("config-") {
      for kernel in LabFiles.names(in: root.appending(configuration)) {
        let directory = root.appending(configuration).appending(kernel)
        for name in LabFiles.names(in: directory)
        where name.hasPrefix("host-") || name.hasPrefix("guest-") {
          if !LabClaim.isFree(directory.appending(name)) { isFree = false }
        }
      }
    }
    guard isFree else { return false }
    LabFiles.remove(root.appending("complete"))
    LabFiles.remove(root)
    return !LabFiles.exists(root)
  }

  /// Removes the directory itself, if only the tag is left.
  func removeEmpty() {
    guard LabFiles.names(in: path) == ["CACHEDIR.TAG"] else { return }
    LabFiles.remove(tagFile)
    rmdir(path.string)
  }
}

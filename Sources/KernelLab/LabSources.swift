import SystemPackage

/// The inputs of a lab: a kernel, and the user's changes of it.
public struct LabSources: Hashable, Sendable {
  /// A version such as "6.1", the directory of a kernel's tree, or an archive (`.tar.xz`, `.tar.gz`) of one.
  public var linux: String?
  /// Diffs of the kernel's tree, in the order in which they are applied.
  public var patches: [String] = []
  /// A C file with a hook: a whole `mmio.c` or a similar file, or the hook alone.
  public var hook: String?
  /// The function of the hook that `io_mem_abort()` or the handler of hypercalls calls.
  public var hookFunction: String?
  /// A C file, or a directory with the files of a module.
  public var module: String?
  /// The parameters of the module, as for insmod.
  public var moduleParameters: String?
  /// A fragment of the kernel's configuration.
  public var config: String?
  /// The files of the patches, the hook and the module, whose paths are names in this list; nil if the paths are those of the file system.
  var files: [LabFile]?

  public init(linux: String? = nil) { self.linux = linux }

  /// The version of Linux without an option.
  public static let defaultVersion = "6.1"
}

/// A file of a user's code that is not in the file system.
struct LabFile: Hashable, Sendable {
  /// The path in the directory of the code, without `..`.
  var name: String
  var bytes: [UInt8]
}

/// The files that a lab boots.
public struct LabImages: Sendable {
  /// The kernel of the host and the guest: `arch/arm64/boot/Image`.
  public let image: FilePath
  /// The host's file system.
  public let hostInitramfs: FilePath
  /// The guest's file system.
  public let guestInitramfs: FilePath
  /// The kernel's `vmlinux`, which has the symbols of addresses.
  public let kernelProgram: FilePath
  /// The kernel's release, such as `6.1.176`.
  public let release: String
  /// The bytes on the disk of the version's trees.
  public let usedBytes: Int
  /// A claim on the files. As long as one of its copies exists, no build removes them. ``LabBuilder/clean(_:)`` leaves them, too.
  public let claim: LabClaim
}

/// The reason why there are no images: lines of tools, and a line with the reason and the next step.
public struct LabFailure: Error, Hashable, Sendable, CustomStringConvertible {
  /// The failure with its path, its reason, and the next step.
  public let description: String
  /// The lines of the compiler or another tool, with the user's files and lines.
  public let lines: [String]
  /// Whether the user's code is the reason: it does not compile, or it does not fit the kernel.
  public let isOfCode: Bool

  public init(_ description: String, after lines: [String] = [], isOfCode: Bool = false) {
    self.description = description
    self.lines = lines
    self.isOfCode = isOfCode
  }
}

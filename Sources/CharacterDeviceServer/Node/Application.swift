/// The program that serves nodes: its name for files and mounts, and its words in errors.
public struct Application: Hashable, Sendable {
  /// The program's name, for example `mirror`. The file below a mount contains the name.
  public var name: String
  /// The name of the program's file systems in the table of mounts: their source is this name, and their type is `fuse.` and this name. A
  /// server removes a dead mount only if the mount has the same type.
  public var fileSystem: String
  /// The advice in errors.
  public var advice: Advice

  /// - Parameters:
  ///   - name: The program's name.
  ///   - fileSystem: The name of the file systems; nil for the program's name.
  ///   - advice: The advice in errors, for a program with options of its own.
  public init(name: String, fileSystem: String? = nil, advice: Advice = Advice()) {
    self.name = name
    self.fileSystem = fileSystem ?? name
    self.advice = advice
  }

  /// The next step for the program's user after a ``NodeError``. A program with a command line puts its options here.
  public struct Advice: Hashable, Sendable {
    /// The advice if something else is at the node's path.
    public var otherNode = "choose another node"
    /// The advice if the node cannot be made at its path. The text follows the word "choose".
    public var ownNode = "a node that you may make"
    /// The advice if something else is at the path of a ``FileTreeServer``.
    public var otherDirectory = "choose another directory"
    /// The advice if the directory of a tree cannot be made at its path. The text follows the word "choose".
    public var ownDirectory = "a directory that you may make"
    /// The advice if the kernel has no CUSE, or the module is not loaded.
    public var cuseIsMissing = "modprobe cuse, or serve the device by FUSE"
    /// The advice if the user may not use CUSE.
    public var cuseIsRefused = "run as root, or serve the device by FUSE at a path of your own"
    /// The advice if the kernel's nodes do not appear in /dev.
    public var nodeDoesNotAppear = "/dev has to be a devtmpfs; serve the device by FUSE here"

    /// Advice for a program without options.
    public init() {}
  }

  /// The content of the file below a mount. A file with this content is the program's.
  var mountPointText: String { "mount point of \(name), which removes it when it ends\n" }
}

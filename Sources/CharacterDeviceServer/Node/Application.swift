/// The program that serves nodes: its name, for files and mounts that others see, and its words in errors.
public struct Application: Hashable, Sendable {
  /// For example `mirror`. A file that the program mounts over says that it is the program's.
  public var name: String
  /// The type of the program's file systems is `fuse.` and this, and their source is this. A server clears away a dead mount of the
  /// same type only.
  public var fileSystem: String
  /// The program's words in errors.
  public var advice: Advice

  /// - Parameters:
  ///   - name: The program's name.
  ///   - fileSystem: Nil for the program's name.
  ///   - advice: The program's words in errors, if it has options of its own to name.
  public init(name: String, fileSystem: String? = nil, advice: Advice = Advice()) {
    self.name = name
    self.fileSystem = fileSystem ?? name
    self.advice = advice
  }

  /// The next step for the program's user after a ``NodeError``. A program with a command line names its options here.
  public struct Advice: Hashable, Sendable {
    /// Something else is at the node's path.
    public var otherNode = "choose another node"
    /// The node cannot be made at its path; goes on after "choose ".
    public var ownNode = "a node that you may make"
    /// Something else is at the path of a ``FileTreeServer``.
    public var otherDirectory = "choose another directory"
    /// The directory of a tree cannot be made at its path; goes on after "choose ".
    public var ownDirectory = "a directory that you may make"
    /// The kernel has no CUSE, or its module is not loaded.
    public var cuseIsMissing = "modprobe cuse, or serve the device by FUSE"
    /// The user may not use CUSE.
    public var cuseIsRefused = "run as root, or serve the device by FUSE at a path of your own"
    /// The kernel's nodes do not appear in /dev.
    public var nodeDoesNotAppear = "/dev has to be a devtmpfs; serve the device by FUSE here"

    /// Words for a program without options.
    public init() {}
  }

  /// The content by which a file is recognised as the program's.
  var mountPointText: String { "mount point of \(name), which removes it when it ends\n" }
}

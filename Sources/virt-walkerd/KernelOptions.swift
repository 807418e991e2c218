import ArgumentParser
import CharacterDeviceServer
import KernelEngine
import KernelLab
import Stage2Sim
import SystemPackage

/// The kind of machine behind a node.
enum EngineKind: String, ExpressibleByArgument, CaseIterable {
  case model, kernel
}

/// The options that select a real kernel in the place of the model.
struct KernelOptions: ParsableArguments {
  @Option(
    help: """
      model: the model of Linux. kernel: a real KVM guest with the module, in an emulated host with the hook. Its kernel is built at \
      the first start, which takes some minutes (docs/lab.md).
      """)
  var engine = EngineKind.model

  @Option(
    help: ArgumentHelp(
      "With --engine kernel: a fragment of the kernel's configuration, in addition to the one that virt-walkerd needs. (default: no fragment)",
      valueName: "file"),
    transform: CodePath.parse)
  var config: String?

  @OptionGroup var cache: LabCacheOptions

  @Option(
    help: ArgumentHelp(
      "With --engine kernel: boot the files Image, host-initramfs.cpio and guest-initramfs.cpio of this directory, and build nothing. `virt-walkerd lab build --output DIR` makes such a directory. (default: build what is missing)",
      valueName: "dir"),
    transform: CodePath.parse)
  var images: String?

  @Option(
    help: ArgumentHelp(
      "With --engine kernel: the program that emulates the host. (default: /usr/bin/qemu-system-aarch64)",
      valueName: "file"),
    transform: CodePath.parse)
  var emulator: String?

  /// The least guest RAM in which a Linux kernel runs, and the most that an emulated host has room for.
  private static let memory: ClosedRange<UInt64> = 128 << 20...1 << 30

  /// Checks the other options for a real kernel.
  func check(_ serve: Serve) throws {
    func refuse(_ isGiven: Bool, _ option: String, _ reason: String) throws {
      if isGiven { throw ValidationError("\(option) is not for --engine kernel: \(reason)") }
    }
    try refuse(serve.count != nil, "--count", "one daemon serves one real guest")
    try refuse(
      serve.ownHook.sanitize, "--sanitize",
      "choose the checks of the kernel by --config, e.g. CONFIG_KASAN=y")
    guard !serve.ownModule.watchSource || serve.ownModule.module != nil else {
      throw ValidationError(
        "--watch-source with --engine kernel needs a module to watch: give --module")
    }
    let hasCode =
      serve.ownModule.module != nil || serve.ownHook.isGiven || serve.ownHook.linux != nil
      || config != nil
    try refuse(
      images != nil && hasCode, "--images with code or a kernel to compile",
      "the images have theirs already")
    let configuration = serve.machine
    try refuse(
      configuration.kernel != .standard, "--kernel", "--linux selects the version")
    try refuse(
      configuration.granule != .kib4, "--granule \(configuration.granule)",
      "its kernel has pages of 4K")
    try refuse(
      ![.anonymous, .huge, .hugetlb].contains(configuration.backing),
      "--backing \(configuration.backing.rawValue)", "give anonymous, huge or hugetlb")
    try refuse(
      !Self.memory.contains(configuration.memorySize), "--memory",
      "a real guest has 128M to 1G")
  }

  /// Checks that there is no option for a real kernel.
  func checkModel() throws {
    for (option, isGiven) in [
      ("--config", config != nil), ("--cache", cache.cache != nil), ("--images", images != nil),
      ("--emulator", emulator != nil),
    ] where isGiven {
      throw ValidationError("\(option) is for a real kernel: give --engine kernel, too")
    }
  }
}

/// The files that a host and its guest boot.
struct BuiltImages {
  let host: EmulatedHost.Images
  /// The guest's initramfs.
  let guest: FilePath
  /// The claim on the files; nil if they are not in the cache.
  let claim: LabClaim?
}

extension KernelOptions {
  /// The files of the host, and the guest's initramfs. Builds what is missing, which takes some minutes the first time.
  ///
  /// - Parameters:
  ///   - hook: The options for the code in the host's kernel.
  ///   - module: The options for the guest's module.
  ///   - user: The user as whom a process of root's builds.
  ///   - progress: A function that takes lines for people.
  func hostImages(
    _ hook: HookOptions, _ module: ModuleOptions, as user: Sandbox.User?,
    progress: @escaping (String) -> Void
  ) throws -> BuiltImages {
    let emulator = emulator.map { FilePath($0).absolute } ?? EmulatedHost.Images.usualEmulator
    if let images {
      let directory = ImageDirectory(path: FilePath(images).absolute)
      return BuiltImages(
        host: directory.images(emulator: emulator), guest: directory.guestInitramfs, claim: nil)
    }
    var sources = LabSources()
    sources.linux = hook.linux
    sources.patches = hook.patches
    sources.hook = hook.hook
    sources.hookFunction = hook.hookFunction
    sources.module = module.module
    sources.moduleParameters = module.moduleParameters
    sources.config = config
    let built = try cache.builder(as: user, progress: progress).build(sources)
    return BuiltImages(
      host: .init(kernel: built.image, initramfs: built.hostInitramfs, emulator: emulator),
      guest: built.guestInitramfs, claim: built.claim)
  }
}

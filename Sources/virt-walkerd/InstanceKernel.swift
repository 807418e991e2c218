import CharacterDeviceServer
import Glibc
import Inspection
import KernelEngine
import KernelLab
import Logging
import Scenarios
import SystemPackage

/// The real kernel behind a node.
final class InstanceKernel {
  let engine: KernelEngine
  private let timer: DelayTimer
  private let summary: String
  /// The claim on the images, which a reset needs again.
  private let claim: LabClaim?
  /// The process that builds changed files; nil if no file is watched.
  private let watcher: SourceWatcher?
  private let log: Logger

  /// The time between two looks at the host, in milliseconds.
  private static let checkInterval = 1000

  /// Builds what is missing, starts the host, and loads the module into the guest. This takes some minutes the first time.
  ///
  /// - Throws: ``LabFailure`` or `EngineFailure`.
  init(
    _ options: Serve, _ machine: MachineDescription, eventCapacity: Int, at node: FilePath,
    log: Logger
  ) throws {
    let progress = { (text: String) in log.notice("\(text)") }
    let user = options.runAs.user
    let images = try options.realKernel.hostImages(
      options.ownHook, options.ownModule, as: user, progress: progress)
    claim = images.claim
    watcher = try Self.watcher(options, images, user)
    self.log = log
    let initramfs = try ImageDirectory.content(ofGuest: images.guest)
    let host = try EmulatedHost(images.host, machine.configuration, user: user)
    engine = try KernelEngine(
      machine, on: host, guestInitramfs: initramfs,
      preferredDevice: node.lastComponent?.string ?? "", eventCapacity: eventCapacity,
      progress: progress)
    timer = try DelayTimer()
    summary = "Linux \(engine.kernelRelease), device \(engine.device)"
  }

  /// Takes what the host sends.
  ///
  /// - Parameter onNews: A function that is called after each part of it.
  func watch(
    _ device: InspectedDevice, in loop: EventLoop, onNews: @escaping () -> Void
  ) throws(Errno) {
    func proceed(_ body: () -> Void) {
      // The node may be in the middle of a call. The frames of the host stay in the socket until then.
      guard !loop.isServingOthers else { return }
      device.goOn(body)
      onNews()
    }
    for descriptor in engine.descriptors {
      try loop.add(descriptor) { [self] in
        proceed { engine.proceed() }
        guard !engine.isConnected else { return }
        for descriptor in engine.descriptors { loop.remove(descriptor) }
      }
    }
    proceed { engine.proceed() }
    if let watcher {
      try loop.add(watcher.descriptor) { [self] in
        guard !loop.isServingOthers else { return }
        for message in watcher.messages() {
          if message == .end { loop.remove(watcher.descriptor) }
          take(message, device)
        }
        onNews()
      }
    }
    try loop.add(timer.descriptor) { [self] in
      timer.finish()
      proceed { engine.checkHost() }
      timer.start(milliseconds: Self.checkInterval)
    }
    timer.start(milliseconds: Self.checkInterval)
  }

  /// The process that watches the files of the module and of the hook, if the options ask for it.
  private static func watcher(
    _ options: Serve, _ images: BuiltImages, _ user: Sandbox.User?
  ) throws -> SourceWatcher? {
    guard options.ownModule.watchSource else { return nil }
    let paths = [options.ownModule.module, options.ownHook.hook].compactMap(\.self)
    return try SourceWatcher(
      (paths + options.ownHook.patches).map { FilePath($0) }, present: images
    ) {
      try options.realKernel.hostImages(options.ownHook, options.ownModule, as: user) { _ in }
    }
  }

  private func take(_ message: SourceWatcher.Message, _ device: InspectedDevice) {
    switch message {
    case .built(let initramfs):
      engine.guestInitramfs = initramfs
      do throws(Errno) {
        try device.bootAnew()
        log.notice("the files have changed: the new module runs")
      } catch {
        log.error("the files have changed, and the guest does not start: correct the module")
      }
    case .failed(let text):
      for line in text.split(separator: "\n") { log.error("\(line)") }
      log.error("the files have changed, and do not compile: the old module goes on")
    case .hostChanged:
      log.warning(
        "the hook has changed, and its kernel is built: the old one goes on until the daemon is started again"
      )
    case .end:
      log.error("the process that builds changed files was killed: restart the daemon")
    }
  }

  /// Unloads the module, and ends the host.
  func end() { engine.end() }

  /// The file `code` of the tree.
  var report: String { "kernel: \(summary)\n" }
}

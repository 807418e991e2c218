import Glibc
import Synchronization

// Processes, signals and time. Each wait of this file has an end, and ends at once when this program has to end. The wait for a
// process may be long, because SIGKILL does not end a process that waits for a file server.

/// SIGHUP, SIGINT or SIGTERM of this program.
struct Interruption: Error {
  let signal: Int32
}

private let caughtSignal = Atomic<Int32>(0)

/// Makes each function that waits throw `Interruption` after SIGHUP, SIGINT or SIGTERM.
func catchSignals() {
  for number in [SIGHUP, SIGINT, SIGTERM] {
    signal(number) { caughtSignal.store($0, ordering: .relaxed) }
  }
}

/// The time since the start of the machine in seconds, by a clock that cannot be set.
func now() -> Double {
  var time = timespec()
  clock_gettime(CLOCK_MONOTONIC, &time)
  return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
}

func sleep(seconds: Double) throws(Interruption) {
  let end = now() + seconds
  repeat {
    let caught = caughtSignal.load(ordering: .relaxed)
    if caught != 0 { throw Interruption(signal: caught) }
    usleep(UInt32(max(0, min(end - now(), 0.02)) * 1e6))
  } while now() < end
}

/// A pause of random length up to 0.3 s, so that a fault comes at a random moment.
func randomPause() throws(Interruption) {
  try sleep(seconds: .random(in: 0..<0.3))
}

/// Whether `condition` becomes true in time. A minute is enough for a busy machine.
func soon(within seconds: Double = 60, _ condition: () throws -> Bool) throws -> Bool {
  let end = now() + seconds
  while now() < end {
    if try condition() { return true }
    try sleep(seconds: 0.02)
  }
  return try condition()
}

/// The end of a process.
enum Exit: Equatable, CustomStringConvertible {
  case status(Int32)
  case signal(Int32)

  var description: String {
    switch self {
    case .status(let status): "exit status \(status)"
    case .signal(let number): "signal \(number)"
    }
  }
}

/// A program that runs in a process group of its own, with its output and errors in a file.
final class Child {
  let process: pid_t
  let output: String
  private let command: String
  private var exit: Exit?

  /// Starts a program; `output` is the path of the file for its output, or /dev/null.
  init(
    _ arguments: [String], environment: [String] = [], output: String = "/dev/null"
  ) throws {
    command = arguments.joined(separator: " ")
    self.output = output
    process = try spawn(arguments, environment: environment, output: output)
  }

  /// The output of the program so far.
  var printed: String { readFile(output) ?? "" }

  /// The end of the program, or nil while it runs.
  func poll() -> Exit? {
    if let exit { return exit }
    var status: Int32 = 0
    guard waitpid(process, &status, WNOHANG) == process else { return nil }
    // WIFEXITED, WEXITSTATUS and WTERMSIG are macros.
    exit = status & 0x7f == 0 ? .status(status >> 8 & 0xff) : .signal(status & 0x7f)
    return exit
  }

  /// Waits for the end of the program. After `seconds`, the process group is killed and the wait fails.
  func wait(seconds: Double) throws -> Exit {
    if try soon(within: seconds, { poll() != nil }), let exit { return exit }
    let place = readFile("/proc/\(process)/wchan") ?? "?"
    killGroup()
    let isGone = try soon(within: 10) { poll() != nil }
    throw Failed(
      "not ended after \(Int(seconds)) s\(isGone ? "" : ", and SIGKILL does not end it"), in \(place): \(command)\n\(printed)"
    )
  }

  func signal(_ number: Int32) {
    if poll() == nil { Glibc.kill(process, number) }
  }

  /// Kills the program and its children, which may run longer than the program.
  func killGroup() {
    Glibc.kill(-process, SIGKILL)
  }
}

/// Starts a program with standard input from /dev/null.
///
/// This is the only function that calls posix_spawn, with its C strings and out parameters.
private func spawn(_ arguments: [String], environment: [String], output: String) throws -> pid_t {
  var actions = posix_spawn_file_actions_t()
  posix_spawn_file_actions_init(&actions)
  defer { posix_spawn_file_actions_destroy(&actions) }
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
  posix_spawn_file_actions_addopen(&actions, 1, output, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
  posix_spawn_file_actions_adddup2(&actions, 1, 2)
  var attributes = posix_spawnattr_t()
  posix_spawnattr_init(&attributes)
  defer { posix_spawnattr_destroy(&attributes) }
  posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETPGROUP))
  posix_spawnattr_setpgroup(&attributes, 0)

  var variables: [UnsafeMutablePointer<CChar>?] = environment.map { strdup($0) }
  var inherited = environ
  while let variable = inherited.pointee {
    variables.append(strdup(variable))
    inherited += 1
  }
  let words: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) }
  defer { for string in variables + words { free(string) } }
  var process: pid_t = 0
  let error = posix_spawnp(
    &process, arguments[0], &actions, &attributes, words + [nil], variables + [nil])
  try require(error == 0, "cannot start \(arguments[0]): \(errorText(error))")
  return process
}

/// Runs a program to its end, and returns its end and its output.
func run(
  _ arguments: [String], environment: [String] = [], output: String, seconds: Double
) throws -> (exit: Exit, output: String) {
  let child = try Child(arguments, environment: environment, output: output)
  let exit = try child.wait(seconds: seconds)
  // The output is complete also if the program has left a process in the background.
  return (exit, child.printed)
}

/// Whether a process has ended. A zombie has ended: it has no program any more.
func hasEnded(_ process: pid_t) -> Bool { access("/proc/\(process)/exe", F_OK) != 0 }

/// Whether all threads of a process are stopped.
func isStopped(_ process: pid_t) -> Bool {
  directory("/proc/\(process)/task").allSatisfy {
    readFile("/proc/\(process)/task/\($0)/status")?.contains("\nState:\tT (stopped)") ?? true
  }
}

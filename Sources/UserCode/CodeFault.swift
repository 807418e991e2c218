import CUserCode
import Glibc
import Stage2Sim

/// The end of a user's code by a mistake, in the words of a kernel.
struct CodeFault {
  /// The line that a kernel logs.
  var text: String
  /// The reason in plain words; empty if the text has it.
  var advice: String
  /// The addresses of the functions that were running, the innermost first.
  var frames: [UInt64] = []

  init(_ text: String, _ advice: String) {
    self.text = text
    self.advice = advice
  }

  /// - Parameters:
  ///   - fault: The report of the code.
  ///   - kind: The code.
  ///   - isDevice: Whether an address is one that `ioremap()` has returned.
  init(_ fault: channel_fault, in kind: CodeKind, isDevice: (UInt64) -> Bool) {
    var fault = fault
    let count = min(Int(fault.frame_count), Int(CHANNEL_FRAMES))
    let frames = withUnsafeBytes(of: &fault.frames) {
      Array($0.bindMemory(to: UInt64.self).prefix(count))
    }
    let reported = withUnsafeBytes(of: &fault.text) { CodeRecord.printable($0.prefix { $0 != 0 }) }
    switch channel_fault_kind(fault.kind) {
    case CHANNEL_FAULT_SIGNAL:
      self = Self.signal(fault, isDevice: isDevice)
      // The runtime knows more about some addresses.
      if !reported.isEmpty { advice = Self.sentence(reported) }
    case CHANNEL_FAULT_STACK:
      self.init(
        "Kernel panic - not syncing: kernel stack overflow",
        "The stack is full: a function calls itself without an end, or a local variable is too large for the stack of a kernel"
      )
    case CHANNEL_FAULT_LOCKUP:
      self.init(
        reported.isEmpty ? "watchdog: BUG: soft lockup - CPU#0 stuck" : reported,
        "The code ran too long without a return: a loop has no end")
    case CHANNEL_FAULT_BUG:
      self.init(
        reported.isEmpty ? "kernel BUG" : reported, "")
    case CHANNEL_FAULT_SANITIZER:
      self.init(
        reported.isEmpty ? "a sanitizer has found an error" : reported,
        "The sanitizer has stopped the code at this line")
    default:
      self.init(
        "Internal error: a fault of the unknown kind \(fault.kind)",
        "The \(kind.rawValue) has ended by a fault that this version does not know")
    }
    self.frames = frames
  }

  /// A text of the runtime about an address as a sentence, without the line of the kernel that the fault has already.
  private static func sentence(_ text: String) -> String {
    var text = text[...]
    if text.hasPrefix("Unable to handle"), let colon = text.firstRange(of: ": ") {
      text = text[colon.upperBound...]
    }
    return text.prefix(1).uppercased() + text.dropFirst()
  }

  private static func signal(
    _ fault: channel_fault, isDevice: (UInt64) -> Bool
  ) -> CodeFault {
    let address = hexadecimal(fault.address, digits: 16)
    let access = fault.access == 1 ? "writes to" : fault.access == 2 ? "calls" : "reads from"
    let user = UInt64(CHANNEL_USER_ADDRESS)
    switch fault.signal {
    case SIGSEGV, SIGBUS:
      if fault.address < 4096 {
        return CodeFault(
          "Unable to handle kernel NULL pointer dereference at virtual address \(address)",
          fault.access == 2
            ? "The code calls a function through a null pointer"
            : "The code \(access) a null pointer\(fault.address == 0 ? "" : ", or a member of a structure at a null pointer")"
        )
      }
      if fault.address >= user - 4096, fault.address < user + UInt64(CHANNEL_DATA_SIZE) + 4096 {
        return CodeFault(
          "Unable to handle kernel access to user memory outside uaccess routines at virtual address \(address)",
          "The code \(access) a program's memory by itself: use copy_to_user() or copy_from_user()")
      }
      if isDevice(fault.address) {
        return CodeFault(
          "Unable to handle kernel paging request at virtual address \(address)",
          "The code \(access) a register of a device as if it were memory: use readb() or writeb() with the address of ioremap()"
        )
      }
      return CodeFault(
        "Unable to handle kernel paging request at virtual address \(address)",
        "The code \(access) an address where nothing is: the pointer was not set, was freed, or goes past the end"
      )
    case SIGFPE:
      return CodeFault(
        "Internal error: Oops: division by zero",
        "The code divides by zero: check the divisor before the division")
    case SIGILL, SIGTRAP:
      return CodeFault(
        "Internal error: Oops - undefined instruction",
        "The code came to an instruction that ends it: a BUG(), or a place that the compiler takes for unreachable"
      )
    case SIGSYS: return systemCall
    default:
      return CodeFault(
        "Internal error: Oops: signal \(fault.signal)", "The code was ended by a signal")
    }
  }

  private static let systemCall = CodeFault(
    "Internal error: Oops: a system call of a program in a kernel's code",
    "The code calls the operating system of this machine, which a kernel's code cannot do: use the functions of the kernel"
  )

  /// An end of the process without a report.
  init(_ end: CodeEnd, of kind: CodeKind) {
    switch end {
    case .killed(SIGSYS): self = Self.systemCall
    case .killed(SIGKILL):
      self.init(
        "Internal error: the process of the \(kind.rawValue) was killed",
        "The code has taken all memory that it may have, or another program has sent SIGKILL")
    case .killed(SIGXCPU):
      self.init(
        "watchdog: BUG: soft lockup - CPU#0 stuck",
        "The code ran too long without a return: a loop has no end")
    case .killed(let signal):
      self.init(
        "Internal error: Oops: signal \(signal)",
        "The process of the \(kind.rawValue) was ended by signal \(signal) and could not say where")
    case .exited(let status):
      self.init(
        "Internal error: the process of the \(kind.rawValue) has ended with status \(status)",
        "The code has ended its own process, or the start of the process has failed")
    }
  }

  /// No answer in time.
  static func hung(_ kind: CodeKind) -> CodeFault {
    CodeFault(
      "watchdog: BUG: soft lockup - CPU#0 stuck for \(CodeChannel.limit / 1_000_000_000)s",
      "The \(kind.rawValue) has not answered in time: a loop has no end, or the code waits for something that does not come"
    )
  }

  /// An answer that no runtime gives.
  static func broken(_ problem: String, _ kind: CodeKind) -> CodeFault {
    CodeFault(
      "Internal error: the \(kind.rawValue) has damaged its own runtime: \(problem)",
      "The code has written over memory that is not its own: --sanitize finds the place")
  }
}
